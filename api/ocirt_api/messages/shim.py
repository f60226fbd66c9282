"""Messages of our shim's own service: ocirt_api/shim/shim.proto."""

from __future__ import annotations

from ocirt_api.message import STRING, UINT32, Message, boolean, data, enum, int64, one, repeated, string, uint32

SERVICE = "ocirt.shim.v1.Shim"
PROTOCOL = 3
# StateResponse.Status
UNKNOWN, CREATED, RUNNING, PAUSED, STOPPED = range(5)


class Nothing(Message):
    """No answer but that it was done."""


class VersionRequest(Message):
    """Who are you?"""


class VersionResponse(Message):
    """What the shim speaks, and which ocirt it is."""

    protocol: int = uint32(1)
    version: str = string(2)


class IDMapping(Message):
    """As in config.json."""

    container_id: int = uint32(1)
    host_id: int = uint32(2)
    size: int = uint32(3)


class Overlay(Message):
    """A root of layers, the topmost first."""

    lowers: list[str] = repeated(1, STRING)
    upper: str = string(2)
    work: str = string(3)
    volatile: bool = boolean(4)
    read_only: bool = boolean(5)
    uids: list[IDMapping] = repeated(6, IDMapping)
    gids: list[IDMapping] = repeated(7, IDMapping)


class CreateRequest(Message):
    """Make the container, up to its start."""

    id: str = string(1)
    bundle: str = string(2)
    config: bytes = data(3)
    root: Overlay | None = one(4, Overlay)
    stdin: bool = boolean(5)
    stdin_once: bool = boolean(6)
    log_path: str = string(7)
    log_line_limit: int = uint32(8)
    cgroup_manager: str = string(9)
    log_size_limit: int = int64(16)
    log_rate_limit: int = int64(17)
    terminal: bool = boolean(18)
    state: str = string(19)


class CreateResponse(Message):
    """The pid of init, which waits for `Start`."""

    pid: int = uint32(1)


class StartRequest(Message):
    """Run the program."""


class DeleteRequest(Message):
    """Remove the container, and end the shim."""


class StateRequest(Message):
    """Of methods that need no more than the container."""


class StateResponse(Message):
    """What the container is. Times are nanoseconds since the epoch."""

    id: str = string(1)
    pid: int = uint32(2)
    status: int = enum(3)
    created_at: int = int64(4)
    started_at: int = int64(5)
    exited_at: int = int64(6)
    exit_code: int = uint32(7)
    oom_killed: bool = boolean(8)


class PidsResponse(Message):
    """The processes of the container, as the host numbers them."""

    pids: list[int] = repeated(1, UINT32)


class KillRequest(Message):
    """A signal for init, or for all."""

    signal: int = uint32(1)
    all: bool = boolean(2)


class UpdateRequest(Message):
    """Other limits."""

    resources: bytes = data(1)


class ExecRequest(Message):
    """Run a program to its end. timeout: nanoseconds. id, state: for an executor, the container and its shim's directory."""

    process: bytes = data(1)
    stdin: bytes = data(2)
    timeout: int = int64(3)
    output_limit: int = uint32(4)
    id: str = string(5)
    state: str = string(6)


class ExecResponse(Message):
    """How it has ended, and what it has written."""

    exit_code: int = uint32(1)
    stdout: bytes = data(2)
    stderr: bytes = data(3)
    timed_out: bool = boolean(4)
    truncated: bool = boolean(5)
    spilled: str = string(6)


class StreamRequest(Message):
    """A client whose connection comes along: run a program for it, or give it the container's own streams."""

    process: bytes = data(1)
    stdin: bool = boolean(2)
    stdout: bool = boolean(3)
    stderr: bool = boolean(4)
    terminal: bool = boolean(5)
    transport: str = string(6)
    protocol: str = string(7)
    answer: bytes = data(8)
    rest: bytes = data(9)


# method: (request, response)
METHODS: dict[str, tuple[type[Message], type[Message]]] = {
    "Version": (VersionRequest, VersionResponse),
    "Create": (CreateRequest, CreateResponse),
    "Start": (StartRequest, StateResponse),
    "Delete": (DeleteRequest, StateResponse),
    "State": (StateRequest, StateResponse),
    "Wait": (StateRequest, StateResponse),
    "Pids": (StateRequest, PidsResponse),
    "Kill": (KillRequest, Nothing),
    "Pause": (StateRequest, Nothing),
    "Resume": (StateRequest, Nothing),
    "Update": (UpdateRequest, Nothing),
    "ReopenLog": (StateRequest, Nothing),
    "Exec": (ExecRequest, ExecResponse),
    "StreamExec": (StreamRequest, Nothing),
    "Attach": (StreamRequest, Nothing),
    "Share": (StateRequest, Nothing),
}
