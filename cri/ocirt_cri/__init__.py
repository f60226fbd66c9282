"""ocirtd: the CRI daemon."""
