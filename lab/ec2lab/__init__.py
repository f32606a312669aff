"""ec2lab: an EC2 on one Linux machine, with nodes that boot and a network that filters."""
