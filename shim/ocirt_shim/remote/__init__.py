"""Clients of exec, attach and port-forward: SPDY/3.1 and WebSocket without I/O, and the processes that serve them.

The connection of a client comes here as a descriptor, with the request's head read. No byte of it goes through ocirtd.
"""

# What a client wants, by what, and the one protocol that more than one module knows.
EXEC, ATTACH, PORT_FORWARD = "exec", "attach", "portforward"
SPDY, WEBSOCKET = "spdy", "websocket"
READY = b"y"  # of a process that serves port-forward and has all that it needs
TUNNEL = "SPDY/3.1+portforward.k8s.io"


class FaultError(Exception):
    """A client does not keep to its protocol."""
