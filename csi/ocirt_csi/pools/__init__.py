"""Pools, and the back ends that hold volumes in them: one file each, behind the interface of `base`."""
