"""What of ocirt-csi needs no kernel."""
