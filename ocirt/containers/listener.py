"""The listener of a container's filter: taken from init, and given to the agent of config.json (config-linux.md, "Seccomp").

Loaded only if a profile names an agent.
"""

from __future__ import annotations

import posix
import select

from ocirt import jsonlite
from ocirt.containers.destroy import hook_state
from ocirt.errors import Error
from ocirt.kernel import messages, unixsocket
from ocirt.kernel.steps.listener import GIVE_UP, GO_ON

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.state import Record

_POINTER = "/linux/seccomp/listenerPath"


def take(way: int, agent: dict[str, str], pid: int, record: Record, status: str) -> bytes:
    """Take the listener from a socket that init has the other end of, send it to the agent, and let init go on.

    agent: "path", absolute, and "metadata". pid: the process with the filter; status: that of its container, by `record`.
    Returns what init says next, b"" at the end of the socket. Raises Error when the agent cannot have it.
    """
    message, fds = messages.receive_descriptors(way)
    if message[:1] != b"l":
        return message
    listener, page, sender = fds
    try:
        _send(agent["path"], process_state(agent["metadata"], pid, record, status), listener)
        messages.send(way, b"t")
        poll = select.poll()
        poll.register(sender, select.POLLIN)
        poll.poll()  # its end: init's program would be its parent
        if posix.pread(page, len(GIVE_UP), 0) == GIVE_UP:
            raise Error("kernel", "init did not wait for the seccomp agent any longer", subject=_POINTER)
        posix.pwrite(page, GO_ON, 0)
    finally:
        for fd in fds:
            posix.close(fd)
    return messages.receive(way)


def _send(path: str, state: bytes, listener: int) -> None:
    """One message on a connection of its own."""
    agent = -1
    try:
        agent = unixsocket.connect(path)
        messages.send_descriptors(agent, state, listener)
    except OSError as err:
        text = posix.strerror(err.errno or 0).lower()
        message = f"failed to connect with seccomp agent specified in the seccomp profile: {path}: {text}"
        raise Error("kernel", message, subject=_POINTER, hint="an agent must listen there") from None
    finally:
        if agent >= 0:
            posix.close(agent)


def process_state(metadata: str, pid: int, record: Record, status: str) -> bytes:
    """The container process state (config-linux.md): JSON about process `pid` in a container."""
    head: dict[str, Any] = {"ociVersion": record.get("spec_version", ""), "fds": ["seccompFd"], "pid": pid}
    if metadata:
        head["metadata"] = metadata
    state = hook_state(record)(status, record["pid"])
    return jsonlite.dumps(head)[:-1].encode("utf-8", "surrogateescape") + b',"state":' + state + b"}"
