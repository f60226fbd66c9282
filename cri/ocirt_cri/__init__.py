"""ocirtd: pods and containers for a kubelet."""
