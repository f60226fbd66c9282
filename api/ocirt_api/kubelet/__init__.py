"""How a kubelet gets to know a driver."""
