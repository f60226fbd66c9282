"""The life of containers: plans are made, walked, and undone here; the command line and the library stand on this."""
