"""The barrier between `create` and `start`: two FIFOs and a file in the container's directory.

`start` writes a byte to the FIFO `start`. Init answers on `started`: with its end (init's descriptor closes on exec), or with
what failed. The file `phase` holds, as four bytes, what ocirt.state.phase reads.
"""

from __future__ import annotations

import posix

from ocirt.kernel.run import Run


def make(run: Run, directory: str) -> None:
    """Make and open all three; init inherits the descriptors."""
    for name in ("start", "started"):
        path = f"{directory}/{name}"
        posix.mkfifo(path, 0o600)
        # Read-write, so that the open waits for nobody, and a `start` that dies half-way is no end of file.
        run.fds["barrier/" + name] = posix.open(path, posix.O_RDWR | posix.O_CLOEXEC)
    run.start_fd = run.fds["barrier/start"]
    run.phase_fd = posix.open(directory + "/phase", posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
    posix.write(run.phase_fd, bytes(4))


def wait(run: Run) -> None:
    """Stand still until somebody calls `start`."""
    posix.read(run.start_fd, 1)
    run.before_exec.append(lambda: _started(run))


def _started(run: Run) -> None:
    """Right before the queued calls: what comes after can only be the program, or a failure that overwrites this."""
    posix.pwrite(run.phase_fd, b"\1\0\0\0", 0)
