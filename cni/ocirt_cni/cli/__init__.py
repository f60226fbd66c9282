"""`ocirt-cni`: networks for people, one file per verb."""
