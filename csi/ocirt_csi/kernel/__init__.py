"""What the kernel is asked for, one file per area, each a thin typed layer over system calls."""
