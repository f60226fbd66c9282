"""Containers written to disk: CRIU's images with all that a restore needs, in one archive."""
