"""ttrpc."""
