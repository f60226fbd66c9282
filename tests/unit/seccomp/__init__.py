"""The translation of seccomp profiles, and its cache."""
