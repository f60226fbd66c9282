"""What a shim publishes: events.proto, envelope.proto, forward.proto."""

from __future__ import annotations

from ocirt_api.message import Message, boolean, one, repeated, string, uint32
from ocirt_api.messages.google import Any, Timestamp
from ocirt_api.messages.types import Mount


class TaskIO(Message):
    """Where the streams of a process go."""

    TYPE_URL = "containerd.events.TaskIO"

    stdin: str = string(1)
    stdout: str = string(2)
    stderr: str = string(3)
    terminal: bool = boolean(4)


class TaskCreate(Message):
    """A container was made."""

    TYPE_URL = "containerd.events.TaskCreate"

    container_id: str = string(1)
    bundle: str = string(2)
    rootfs: list[Mount] = repeated(3, Mount)
    io: TaskIO | None = one(4, TaskIO)
    checkpoint: str = string(5)
    pid: int = uint32(6)


class TaskStart(Message):
    """Its program runs."""

    TYPE_URL = "containerd.events.TaskStart"

    container_id: str = string(1)
    pid: int = uint32(2)


class TaskExit(Message):
    """A process has ended; `id` is its exec_id, or the container for init."""

    TYPE_URL = "containerd.events.TaskExit"

    container_id: str = string(1)
    id: str = string(2)
    pid: int = uint32(3)
    exit_status: int = uint32(4)
    exited_at: Timestamp | None = one(5, Timestamp)


class TaskDelete(Message):
    """A process was forgotten, its status taken."""

    TYPE_URL = "containerd.events.TaskDelete"

    container_id: str = string(1)
    pid: int = uint32(2)
    exit_status: int = uint32(3)
    exited_at: Timestamp | None = one(4, Timestamp)
    id: str = string(5)


class TaskOOM(Message):
    """Something in the container was killed for want of memory."""

    TYPE_URL = "containerd.events.TaskOOM"

    container_id: str = string(1)


class TaskExecAdded(Message):
    """A process was added."""

    TYPE_URL = "containerd.events.TaskExecAdded"

    container_id: str = string(1)
    exec_id: str = string(2)


class TaskExecStarted(Message):
    """An added process runs."""

    TYPE_URL = "containerd.events.TaskExecStarted"

    container_id: str = string(1)
    exec_id: str = string(2)
    pid: int = uint32(3)


class TaskPaused(Message):
    """A container was frozen."""

    TYPE_URL = "containerd.events.TaskPaused"

    container_id: str = string(1)


class TaskResumed(Message):
    """A frozen container goes on."""

    TYPE_URL = "containerd.events.TaskResumed"

    container_id: str = string(1)


class TaskCheckpointed(Message):
    """A container was written to disk."""

    TYPE_URL = "containerd.events.TaskCheckpointed"

    container_id: str = string(1)
    checkpoint: str = string(2)


class Envelope(Message):
    """An event with its topic, such as /tasks/exit."""

    timestamp: Timestamp | None = one(1, Timestamp)
    namespace: str = string(2)
    topic: str = string(3)
    event: Any | None = one(4, Any)


class ForwardRequest(Message):
    """What is sent to containerd."""

    envelope: Envelope | None = one(1, Envelope)


# Where a shim publishes: service and method of containerd's own ttrpc socket.
FORWARD = ("containerd.services.events.ttrpc.v1.Events", "Forward")
TOPICS: dict[type[Message], str] = {
    TaskCreate: "/tasks/create",
    TaskStart: "/tasks/start",
    TaskOOM: "/tasks/oom",
    TaskExit: "/tasks/exit",
    TaskDelete: "/tasks/delete",
    TaskExecAdded: "/tasks/exec-added",
    TaskExecStarted: "/tasks/exec-started",
    TaskPaused: "/tasks/paused",
    TaskResumed: "/tasks/resumed",
    TaskCheckpointed: "/tasks/checkpointed",
}
