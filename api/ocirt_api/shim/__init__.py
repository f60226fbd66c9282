"""Our own service of a shim: what ocirtd needs beyond containerd's Task service."""
