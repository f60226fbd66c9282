"""What `ocirt-cni check-config` looks for: kinds of values, the fields of each plugin, and networks as a whole."""
