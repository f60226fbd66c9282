"""Local volumes by the Container Storage Interface, whose size is enforced. See the README beside this package."""
