"""The RPCs, one file per family."""
