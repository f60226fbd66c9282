"""Clients of exec, attach and port-forward: SPDY/3.1 and WebSocket without I/O, and the processes that serve them.

The connection of a client comes here as a descriptor, with the request's head read. No byte of it goes through ocirtd.
"""
