"""The services that the lab offers its nodes at link-local addresses, inside each VPC's namespace."""
