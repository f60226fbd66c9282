"""Images as the CRI has them: one id for all names, found in memory, pulled by a process of its own.

`catalog` answers questions, `pulls` brings images, `worker` is the process that does it, `process` is the daemon's side of that.
"""
