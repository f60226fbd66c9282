"""ocirt: an OCI runtime as a command and as a library."""

__version__ = "0.1.0"
