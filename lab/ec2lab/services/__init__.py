"""What the lab serves to its nodes at link-local addresses, inside each VPC's namespace."""
