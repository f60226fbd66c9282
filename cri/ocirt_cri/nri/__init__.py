"""The Node Resource Interface (containerd/nri, docs of v0.12): plugins that see pods and containers come and go, and change them.

`plugin` is for plugins that are written in Python; all else is the runtime's side.
"""
