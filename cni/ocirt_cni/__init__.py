"""Container networks: the plugins of CNI 1.1, the runner of network lists, and `ocirt-cni`.

The executables load only what their plugin needs, so modules import their neighbours where they use them if those are large, and
none of `re`, `typing`, `dataclasses`, `enum`, `pathlib`, `ipaddress` and `json`'s Python half on the way of a plugin.
"""
