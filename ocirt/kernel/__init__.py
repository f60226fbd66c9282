"""The interpreter of plans and its thin, typed wrappers, one per system call."""
