"""Bundles that nobody may run: each a good config.json with one fault, or a file that is no config.json at all."""
