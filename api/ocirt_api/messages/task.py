"""Messages of containerd's Task service: ocirt_api/containerd/task_v2.proto and task_v3.proto, which are alike."""

from __future__ import annotations

from ocirt_api.message import Message, boolean, enum, mapping, one, repeated, string, uint32
from ocirt_api.messages.google import Any, Empty, Timestamp
from ocirt_api.messages.types import Mount, ProcessInfo


class CreateTaskRequest(Message):
    """Make a container of a bundle, up to its start."""

    id: str = string(1)
    bundle: str = string(2)
    rootfs: list[Mount] = repeated(3, Mount)
    terminal: bool = boolean(4)
    stdin: str = string(5)
    stdout: str = string(6)
    stderr: str = string(7)
    checkpoint: str = string(8)
    parent_checkpoint: str = string(9)
    options: Any | None = one(10, Any)


class CreateTaskResponse(Message):
    """The pid of init, which waits for `Start`."""

    pid: int = uint32(1)


class StartRequest(Message):
    """Run the program of a container, or a process that `Exec` has added."""

    id: str = string(1)
    exec_id: str = string(2)


class StartResponse(Message):
    """The pid of what runs."""

    pid: int = uint32(1)


class WaitRequest(Message):
    """Answer when the process has ended."""

    id: str = string(1)
    exec_id: str = string(2)


class WaitResponse(Message):
    """How a process has ended."""

    exit_status: int = uint32(1)
    exited_at: Timestamp | None = one(2, Timestamp)


class DeleteRequest(Message):
    """Forget a process that has ended; without exec_id the container."""

    id: str = string(1)
    exec_id: str = string(2)


class DeleteResponse(Message):
    """How the process has ended. Also what `delete` of the shim prints."""

    pid: int = uint32(1)
    exit_status: int = uint32(2)
    exited_at: Timestamp | None = one(3, Timestamp)


class StateRequest(Message):
    """How is this process?"""

    id: str = string(1)
    exec_id: str = string(2)


class StateResponse(Message):
    """A process as it is now."""

    id: str = string(1)
    bundle: str = string(2)
    pid: int = uint32(3)
    status: int = enum(4)
    stdin: str = string(5)
    stdout: str = string(6)
    stderr: str = string(7)
    terminal: bool = boolean(8)
    exit_status: int = uint32(9)
    exited_at: Timestamp | None = one(10, Timestamp)
    exec_id: str = string(11)


class KillRequest(Message):
    """Send a signal, to one process or to all of the container."""

    id: str = string(1)
    exec_id: str = string(2)
    signal: int = uint32(3)
    all: bool = boolean(4)


class ExecProcessRequest(Message):
    """Add a process to a container."""

    id: str = string(1)
    exec_id: str = string(2)
    terminal: bool = boolean(3)
    stdin: str = string(4)
    stdout: str = string(5)
    stderr: str = string(6)
    spec: Any | None = one(7, Any)


class ResizePtyRequest(Message):
    """Set the size of a terminal."""

    id: str = string(1)
    exec_id: str = string(2)
    width: int = uint32(3)
    height: int = uint32(4)


class CloseIORequest(Message):
    """Close the standard input of a process."""

    id: str = string(1)
    exec_id: str = string(2)
    stdin: bool = boolean(3)


class PidsRequest(Message):
    """Which processes does the container have?"""

    id: str = string(1)


class PidsResponse(Message):
    """The processes of a container."""

    processes: list[ProcessInfo] = repeated(1, ProcessInfo)


class PauseRequest(Message):
    """Freeze a container."""

    id: str = string(1)


class ResumeRequest(Message):
    """Let a frozen container go on."""

    id: str = string(1)


class UpdateTaskRequest(Message):
    """Change the limits of a container."""

    id: str = string(1)
    resources: Any | None = one(2, Any)
    annotations: dict[str, str] = mapping(3)


class StatsRequest(Message):
    """What does the container use?"""

    id: str = string(1)


class StatsResponse(Message):
    """A `Metrics` of `cgroups_v1` or `cgroups_v2`."""

    stats: Any | None = one(1, Any)


class CheckpointTaskRequest(Message):
    """Write a container to disk."""

    id: str = string(1)
    path: str = string(2)
    options: Any | None = one(3, Any)


class ConnectRequest(Message):
    """Who are you?"""

    id: str = string(1)


class ConnectResponse(Message):
    """The shim and the init of its container."""

    shim_pid: int = uint32(1)
    task_pid: int = uint32(2)
    version: str = string(3)


class ShutdownRequest(Message):
    """End, if no container is left; `now`: in any case."""

    id: str = string(1)
    now: bool = boolean(2)


SERVICES = ("containerd.task.v2.Task", "containerd.task.v3.Task")
# Method: (what it is sent, what it answers).
METHODS: dict[str, tuple[type[Message], type[Message]]] = {
    "Checkpoint": (CheckpointTaskRequest, Empty),
    "CloseIO": (CloseIORequest, Empty),
    "Connect": (ConnectRequest, ConnectResponse),
    "Create": (CreateTaskRequest, CreateTaskResponse),
    "Delete": (DeleteRequest, DeleteResponse),
    "Exec": (ExecProcessRequest, Empty),
    "Kill": (KillRequest, Empty),
    "Pause": (PauseRequest, Empty),
    "Pids": (PidsRequest, PidsResponse),
    "ResizePty": (ResizePtyRequest, Empty),
    "Resume": (ResumeRequest, Empty),
    "Shutdown": (ShutdownRequest, Empty),
    "Start": (StartRequest, StartResponse),
    "State": (StateRequest, StateResponse),
    "Stats": (StatsRequest, StatsResponse),
    "Update": (UpdateTaskRequest, Empty),
    "Wait": (WaitRequest, WaitResponse),
}
