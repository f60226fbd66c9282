"""What containerd and its shims say to each other. The services are spoken over ttrpc."""
