"""Images: registries, the store, layers, root file systems (see the README beside this package)."""
