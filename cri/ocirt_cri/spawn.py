"""Processes of the daemon's own that are Python: started by exec, spoken with over a socket.

Nothing is ever forked from the daemon, which has grpc's threads. `subprocess` uses vfork(2) as long as nothing is to run in the
child before exec; none of grpc's or Python's handlers for forks are called then. Such a process ends when its socket does.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

LINE = 1 << 20  # bytes of a line that it says, at most
_BOOT = "import sys; sys.path[:] = {path!r}; from {module} import serve; serve({fd})"


async def spawn(module: str) -> tuple[subprocess.Popen[bytes], asyncio.StreamReader, asyncio.StreamWriter]:
    """Have `serve(fd)` of a module run in a process of its own; the process, and the other end of its socket. Raises OSError."""
    ours, theirs = socket.socketpair()
    with theirs:
        boot = _boot(module, theirs.fileno())
        try:
            process = await asyncio.to_thread(
                subprocess.Popen,
                [sys.executable or "/proc/self/exe", "-I", "-S", "-c", boot],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
    ours.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LINE)
    return process, reader, writer


def _boot(module: str, fd: int) -> str:
    """The program, with this process's path for modules: an isolated interpreter has none of ours."""
    return _BOOT.format(path=[os.path.abspath(one) for one in sys.path if one], module=module, fd=fd)
