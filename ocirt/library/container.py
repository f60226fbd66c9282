"""`ocirt.Container` and `ocirt.Bundle`: what the command's create, start, exec, kill, delete and list do."""

from __future__ import annotations

import builtins
import os
import select
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self, Unpack, cast

from ocirt import jsonlite, state
from ocirt.errors import Error
from ocirt.library import process, source
from ocirt.library.config import Config, Options, StrPath, config
from ocirt.library.process import DEVNULL, Stream
from ocirt.zygote import client
from ocirt.zygote.client import Conversation, NoAnswerError


@dataclass(frozen=True)
class State:
    """What a container is now, as `ocirt state` says it; pid is 0 once it has stopped.

    status: "creating", "created", "running", "paused" or "stopped".
    """

    id: str
    status: str
    pid: int
    bundle: str
    rootfs: str
    created: str
    annotations: Mapping[str, str]
    oci_version: str


class Bundle:
    """A directory with a config.json: `path` and `config`. `save` writes it; `os.fspath` is the path."""

    def __init__(self, path: StrPath) -> None:
        """Read the bundle at `path`. Raises Error."""
        self.path = os.path.abspath(path)
        self.config = source.read_config(self.path)

    @classmethod
    def create(cls, path: StrPath, args: Sequence[StrPath], **options: Unpack[Options]) -> Self:
        """Make the directory, and a config.json by `ocirt.config`, with a `rootfs`. Raises Error, OSError."""
        if options.get("rootfs") is None:
            raise Error("invalid", "a bundle needs a root file system", subject="/root/path", hint="give rootfs")
        made = cls.__new__(cls)
        made.path = os.path.abspath(path)
        made.config = config(args, **cast("Any", options))
        os.makedirs(made.path, exist_ok=True)
        made.save()
        return made

    def save(self) -> None:
        """Write `config` to config.json, whole or not at all. Raises OSError."""
        target = os.path.join(self.path, "config.json")
        scratch = f"{target}.{os.getpid()}"
        with open(scratch, "w", encoding="utf-8") as file:
            file.write(jsonlite.dumps(self.config, 4) + "\n")
        os.rename(scratch, target)

    def __fspath__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        return f"Bundle({self.path!r})"


class Container:
    """A container: made here (`create`), or found (`load`, `list`). As a context manager it is deleted by force in the end.

    id, root: its name and the state root. stdin, stdout, stderr: file objects for bytes, of streams that were made with PIPE.
    """

    def __init__(self, container_id: str, root: str, conversation: Conversation | None = None) -> None:
        """Not to be called: see `create`, `load` and `list`."""
        self.id = container_id
        self.root = root
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self.stderr: IO[bytes] | None = None
        self._conversation = conversation
        self._lock = threading.Lock()
        self._status: int | None = None

    @classmethod
    def create(
        cls,
        args: Sequence[StrPath] | None = None,
        *,
        bundle: StrPath | None = None,
        config: Config | None = None,
        id: str | None = None,  # noqa: A002  (OCI's word)
        root: StrPath | None = None,
        cgroups: str = "cgroupfs",
        stdin: Stream = DEVNULL,
        stdout: Stream = DEVNULL,
        stderr: Stream = DEVNULL,
        **options: Unpack[Options],
    ) -> Self:
        """Make a container whose program waits for `start`; the words are those of `ocirt.run`.

        It lives on when this process ends. Its streams are then what it was given here. Raises Error.
        """
        asked = source.request("create", args, bundle, config, id, root, cgroups, options)
        streams = process.Streams(stdin, stdout, stderr)
        try:
            conversation = client.ask(asked, streams.inner)
            try:
                conversation.receive()
            except BaseException:
                conversation.close()
                raise
            made = cls(asked["id"], asked["root"], conversation)
            streams.sent()
            for number, name in enumerate(("stdin", "stdout", "stderr")):
                if number in streams.outer:
                    setattr(made, name, os.fdopen(streams.outer.pop(number), "rb" if number else "wb", 0))
        except NoAnswerError:
            client.tell({"do": "delete", "root": asked["root"], "id": asked["id"], "force": True})
            raise Error("kernel", "the process that made the container is gone", subject=asked["id"]) from None
        finally:
            streams.close()
        return made

    @classmethod
    def load(cls, container_id: str, root: StrPath | None = None) -> Self:
        """A container that is there. Raises Error("not-found")."""
        where = source.state_root(root)
        state.load(where, container_id)
        return cls(container_id, where)

    @classmethod
    def list(cls, root: StrPath | None = None) -> builtins.list[Self]:
        """All containers below the state root, by name."""
        where = source.state_root(root)
        try:
            return [cls(name, where) for name in state.identifiers(where)]
        except FileNotFoundError:
            return []

    @property
    def state(self) -> State:
        """What it is now. Raises Error("not-found")."""
        shown = state.public(state.load(self.root, self.id))
        return State(
            id=shown["id"],
            status=shown["status"],
            pid=shown["pid"],
            bundle=shown["bundle"],
            rootfs=shown["rootfs"],
            created=shown["created"],
            annotations=shown.get("annotations", {}),
            oci_version=shown["ociVersion"],
        )

    @property
    def status(self) -> str:
        """`state.status`."""
        return self.state.status

    @property
    def pid(self) -> int:
        """`state.pid`."""
        return self.state.pid

    def _tell(self, do: str, **more: Any) -> None:
        client.tell({"do": do, "root": self.root, "id": self.id, **more})

    def start(self) -> None:
        """Let its program run. Returns when it does. Raises Error."""
        self._tell("start")

    def kill(self, signal: str | int | signal.Signals = "TERM") -> None:
        """Send its first process a signal. Raises Error("state") if there is none any more."""
        self._tell("kill", signal=str(int(signal)) if isinstance(signal, int) else signal)

    def pause(self) -> None:
        """Suspend all its processes. Raises Error."""
        self._tell("pause")

    def resume(self) -> None:
        """Let them go on. Raises Error."""
        self._tell("resume")

    def delete(self, *, force: bool = False) -> None:
        """Remove what it holds; one that runs only by `force`, and then it may be gone already. Raises Error."""
        self._tell("delete", force=force)
        self.close()

    def close(self) -> None:
        """Let go of the container without ending it: close its streams' ends; `wait` learns no exit status any more."""
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        with self._lock:
            conversation, self._conversation = self._conversation, None
            if conversation is not None:
                if self._status is None:
                    self._hear(conversation)
                conversation.close()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its program's end; -N for signal N. None for a container that was not made by this object.

        Many threads may wait. Raises TimeoutError, Error("not-found").
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        conversation = self._conversation
        if self._status is None and conversation is None:
            self._wait_for_pid(deadline)
        poll = select.poll()
        if conversation is not None:
            poll.register(conversation.fileno(), select.POLLIN)
        while self._status is None and self._conversation is not None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not poll.poll(None if left is None else left * 1000 + 1):
                raise TimeoutError(f"container {self.id} runs on after {timeout} seconds")
            with self._lock:
                if self._status is None and self._conversation is not None and not self._hear(self._conversation):
                    break
        return None if self._status is None else os.waitstatus_to_exitcode(self._status)

    def _hear(self, conversation: Conversation) -> bool:
        """Take the end of the container, if it is told; False when nobody will tell it."""
        try:
            message = conversation.receive(0)
        except NoAnswerError:
            return False
        if message is not None and "status" in message:
            self._status = message["status"]
        return True

    def _wait_for_pid(self, deadline: float | None) -> None:
        record = state.load(self.root, self.id)
        try:
            pidfd = os.pidfd_open(record["pid"])
        except (OSError, OverflowError):
            return  # it has ended
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            if state.init_alive(record) and not poll.poll(left):
                raise TimeoutError(f"container {self.id} runs on")
        finally:
            os.close(pidfd)

    def exec(
        self,
        args: Sequence[StrPath],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | int | tuple[int, int] | None = None,
        input: str | bytes | None = None,  # noqa: A002  (subprocess's word)
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        capture_output: bool = False,
        timeout: float | None = None,
        check: bool = False,
        text: bool = False,
        encoding: str | None = None,
        errors: str | None = None,
        output_limit: int | None = None,
    ) -> process.CompletedProcess:
        """Run one more program in it, to its end; the words are those of `ocirt.run`.

        What is not given is as for the container's own program. At the time-out, and with this process, that program is killed,
        but not what it has started. Raises as `ocirt.run`.
        """
        made = source.changed(state.load(self.root, self.id)["process"], args, {"env": env, "cwd": cwd, "user": user})
        made["terminal"] = False
        made.pop("oomScoreAdj", None)
        try:
            return process.complete(
                {"do": "exec", "root": self.root, "id": self.id, "process": made},
                made["args"],
                input=input,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                capture_output=capture_output,
                timeout=timeout,
                check=check,
                text=text,
                encoding=encoding,
                errors=errors,
                output_limit=output_limit,
            )
        except NoAnswerError:
            raise Error("kernel", "the process that held the program is gone", subject=self.id, hint="it was killed") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None) -> None:
        self.delete(force=True)

    def __repr__(self) -> str:
        return f"Container({self.id!r}, root={self.root!r})"
