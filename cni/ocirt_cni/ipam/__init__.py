"""Addresses: the plugins that choose them, and how the others ask for them."""
