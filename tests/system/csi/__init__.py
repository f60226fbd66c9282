"""ocirt-csi on a real kernel."""
