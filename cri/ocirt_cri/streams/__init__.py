"""Exec, Attach and PortForward: a URL for the client, and its connection, which is given to the process that serves it."""
