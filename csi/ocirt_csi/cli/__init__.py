"""The verbs of `ocirt-csi` that a person types."""
