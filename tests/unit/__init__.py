"""Quick tests: no root, no network."""
