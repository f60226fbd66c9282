"""A driver for any runtime with runc's command line.

`OCIRT_TEST_RUNTIME` names the command (default: `build/ocirt` of this clone), so the same tests run against a peer. With
`OCIRT_TEST_MANAGER=systemd` every container's cgroup is made by systemd, which has to run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.support.build import ROOT
from tests.support.bundle import Bundle
from tests.support.leaks import descendants
from tests.support.patience import patience

T = TypeVar("T")

# Seconds, far beyond what a busy machine takes: they end what hangs, and cost nothing else.
TIMEOUT = 120.0  # of one command
PATIENCE = patience(60.0)  # until what has to come is missed


@dataclass(frozen=True)
class Result:
    """What a command did: exit code (negative: killed by that signal) and its output."""

    args: tuple[str, ...]
    rc: int
    out: str
    err: str

    def ok(self) -> Result:
        """Itself, if it succeeded. Raises AssertionError."""
        assert self.rc == 0, f"{shlex.join(self.args)}: exit code {self.rc}\n{self.out}{self.err}"
        return self

    def failed(self, pattern: str = "", rc: int | None = None) -> Result:
        """Itself, if it failed with `pattern` (a regular expression) on stderr. Raises AssertionError."""
        assert self.rc != 0, f"{shlex.join(self.args)}: succeeded\n{self.out}"
        assert rc is None or self.rc == rc, f"{shlex.join(self.args)}: exit code {self.rc}, not {rc}\n{self.err}"
        assert re.search(pattern, self.err), f"{shlex.join(self.args)}: no {pattern!r} in {self.err!r}"
        return self

    def json(self) -> Any:
        """Its output, read as JSON."""
        return json.loads(self.out)


def default_command() -> list[str]:
    """The runtime under test, as a command."""
    given = os.environ.get("OCIRT_TEST_RUNTIME")
    return shlex.split(given) if given else [str(ROOT / "build" / "ocirt")]


class Runtime:
    """One runtime with a state root of its own; every container that it made can be removed by `clean_up`."""

    def __init__(
        self,
        command: Sequence[str],
        work: Path,
        token: str,
        cgroup_parent: str | None,
        *,
        manager: str = "",
        prefix: Sequence[str] = (),
    ) -> None:
        """Take the command, a directory for state and output, a word for ids, and the parent for cgroupsPath (None: unset).

        manager: "systemd" for cgroups that it makes (the parent is then a slice). prefix: what goes before the command.
        """
        self.command = list(command)
        self.manager = manager
        self.prefix = list(prefix)
        self.name = Path(command[0]).name
        self.root = work / "root"
        self.work = work
        self.token = token
        self.cgroup_parent = cgroup_parent
        self.env: dict[str, str] | None = None
        self._count = 0
        self._spawned: list[subprocess.Popen[bytes]] = []

    @property
    def is_ocirt(self) -> bool:
        """Whether this is our runtime and not a peer that stands in for it."""
        return "ocirt" in self.name

    def new_id(self) -> str:
        """An id that no other container has; `clean_up` knows it."""
        self._count += 1
        return f"{self.token}-{self._count}"

    def prepare(self, bundle: Bundle, container: str) -> None:
        """Write config.json for this container, with a cgroupsPath of its own unless the bundle names one."""
        linux = bundle.config.get("linux")
        if linux is not None and "cgroupsPath" not in linux and self.cgroup_parent:
            # Written for this container, not kept in `bundle.config`: a second container gets a cgroup of its own.
            linux["cgroupsPath"] = self.cgroups_path(container)
            bundle.write()
            del linux["cgroupsPath"]
        else:
            bundle.write()

    def cgroups_path(self, container: str) -> str:
        """The cgroupsPath of a container that does not say itself where it wants to be."""
        if self.manager == "systemd":
            return f"{self.cgroup_parent}:test:{container}"
        return f"{self.cgroup_parent}/{container}"

    def group(self, container: str) -> str:
        """The cgroup of a container that does not say itself where it wants to be, below a hierarchy's mount point."""
        if self.manager == "systemd":
            return f"/{self.cgroup_parent}/test-{container}.scope"
        return f"{self.cgroup_parent}/{container}"

    def argv(self, *args: str | Path, globals_: Sequence[str] = ()) -> list[str]:
        """The whole command line of one call. A `--cgroup-manager` in it is the one that counts."""
        given = [*globals_, *map(str, args)]
        manager = ["--systemd-cgroup"] if self.manager == "systemd" and "--cgroup-manager" not in given else []
        return [*self.prefix, *self.command, "--root", str(self.root), *manager, *given]

    def call(
        self,
        *args: str | Path,
        stdin: str | None = None,
        timeout: float = TIMEOUT,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        globals_: Sequence[str] = (),
        cwd: Path | None = None,
    ) -> Result:
        """Run any verb to its end with captured output. What keeps stdout open keeps this waiting: use `detached` then."""
        argv = self.argv(*args, globals_=globals_)
        done = subprocess.run(
            argv,
            input=None if stdin is None else stdin.encode(),
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            check=False,
            env=env if env is not None else self.env,
            pass_fds=pass_fds,
            cwd=cwd,
        )
        return Result(tuple(argv), done.returncode, _text(done.stdout), _text(done.stderr))

    def detached(
        self,
        *args: str | Path,
        out: Path,
        timeout: float = TIMEOUT,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        globals_: Sequence[str] = (),
    ) -> Result:
        """Run a verb whose container keeps stdout and stderr: both go to files, `out` and `out` with `.err` added."""
        argv = self.argv(*args, globals_=globals_)
        errors = out.with_name(out.name + ".err")
        with out.open("wb") as stdout, errors.open("wb") as stderr:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                timeout=timeout,
                check=False,
                env=env if env is not None else self.env,
                pass_fds=pass_fds,
            )
        return Result(tuple(argv), done.returncode, _text(out.read_bytes()), _text(errors.read_bytes()))

    def output_of(self, container: str) -> Path:
        """Where `create` and `run_detached` sent the container's stdout (stderr: the same name with `.err`)."""
        return self.work / f"{container}.out"

    def run(self, bundle: Bundle, *flags: str | Path, container: str | None = None, **options: Any) -> Result:
        """`run`, attached; options as for `call`. The container's id is new unless given."""
        container = container or self.new_id()
        self.prepare(bundle, container)
        return self.call("run", "--bundle", bundle.path, *flags, container, **options)

    def probe(self, bundle: Bundle, **edits: Any) -> Any:
        """Run the probe in the bundle (with edits) and return what it saw."""
        return self.run(bundle.edit(**{"args": ["/bin/probe"], **edits})).ok().json()

    def shell(self, bundle: Bundle, script: str, **edits: Any) -> Result:
        """Run a shell script in the bundle (with edits)."""
        return self.run(bundle.edit(args=["/bin/sh", "-c", script], **edits))

    def try_create(self, bundle: Bundle, *flags: str | Path, container: str | None = None, **options: Any) -> Result:
        """`create` and what came of it; options as for `detached`."""
        container = container or self.new_id()
        self.prepare(bundle, container)
        return self.detached("create", "--bundle", bundle.path, *flags, container, out=self.output_of(container), **options)

    def try_create_named(self, bundle: Bundle, name: str) -> Result:
        """`create` under a name that ought to be refused."""
        self.prepare(bundle, self.new_id())
        return self.detached("create", "--bundle", bundle.path, name, out=self.work / "refused")

    def spawn_run(self, bundle: Bundle, *flags: str | Path, container: str) -> subprocess.Popen[bytes]:
        """`run`, attached, in the background, with pipes for all three streams; `clean_up` closes it."""
        self.prepare(bundle, container)
        argv = self.argv("run", "--bundle", bundle.path, *flags, container)
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
        )
        self._spawned.append(process)
        return process

    def create(self, bundle: Bundle, *flags: str | Path, **options: Any) -> str:
        """`create`, which has to succeed; returns the container's id."""
        container: str = options.pop("container", None) or self.new_id()
        self.try_create(bundle, *flags, container=container, **options).ok()
        return container

    def run_detached(self, bundle: Bundle, *flags: str | Path, **options: Any) -> str:
        """`run --detach`, which has to succeed; returns the container's id."""
        container: str = options.pop("container", None) or self.new_id()
        self.prepare(bundle, container)
        args = ("run", "--detach", "--bundle", bundle.path, *flags, container)
        self.detached(*args, out=self.output_of(container), **options).ok()
        return container

    def start(self, container: str) -> Result:
        """`start`."""
        return self.call("start", container)

    def exec(self, container: str, *args: str | Path, flags: Sequence[str | Path] = (), **options: Any) -> Result:
        """`exec` of a command, with flags before the id; options as for `call`."""
        return self.call("exec", *flags, container, *args, **options)

    def state(self, container: str) -> dict[str, Any]:
        """`state`, which has to succeed."""
        result: dict[str, Any] = self.call("state", container).ok().json()
        return result

    def status(self, container: str) -> str:
        """The status that `state` reports."""
        return str(self.state(container)["status"])

    def kill(self, container: str, *args: str) -> Result:
        """`kill`."""
        return self.call("kill", container, *args)

    def delete(self, container: str, *flags: str) -> Result:
        """`delete`."""
        return self.call("delete", *flags, container)

    def pid(self, container: str) -> int:
        """The container's init, as the host sees it (0: none)."""
        return int(self.state(container)["pid"])

    def wait(self, container: str, pid: int, seconds: float = PATIENCE) -> int:
        """Reap a detached container's init and return its exit code (128+N for signal N).

        Works because the tests' process is a subreaper, as every caller of a runtime is: the init is its child.
        """

        def reaped() -> int | None:
            done, status = os.waitpid(pid, os.WNOHANG)
            if not done:
                return None
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code

        code = wait_for(reaped, f"the end of {container}", seconds)
        assert code is not None
        return code

    def wait_output(self, container: str, text: str, seconds: float = PATIENCE) -> str:
        """Wait until a detached container's stdout contains `text` and return all of it."""
        path = self.output_of(container)
        wait_for(lambda: text in path.read_text(), f"{text!r} in {container}'s output", seconds)
        return path.read_text()

    def _delete_and_reap(self, container: str) -> list[str]:
        # A process that joined the container is a child of ours, and its zombie keeps the pid namespace, with init, from ending.
        argv = self.argv("delete", "--force", container)
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.env) as process:
            try:
                while process.poll() is None:
                    reap_orphans({process.pid})
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(0.01)
            finally:
                process.kill()
            assert process.stdout is not None
            output = _text(process.stdout.read())
        return [f"delete --force {container}: exit code {process.returncode}: {output}"] if process.returncode else []

    def clean_up(self) -> list[str]:
        """Remove by force every container that still has state; returns complaints of a runtime that could not."""
        complaints = []
        for process in self._spawned:
            if process.poll() is None:
                process.kill()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
            process.wait()
        left = sorted(entry.name for entry in self.root.iterdir()) if self.root.is_dir() else []
        for container in left:
            if not container.startswith(self.token):
                continue
            complaints += self._delete_and_reap(container)
        if self.root.is_dir():
            # A name that can't be an id (a cache, a lock) may stay.
            complaints += [f"left in the state root: {entry}" for entry in self.root.iterdir() if entry.name[0].isalnum()]
        return complaints


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


def wait_for(condition: Callable[[], T], what: str, seconds: float = PATIENCE) -> T:
    """Call `condition` until it returns something true (or 0), and return that. Raises AssertionError after `seconds`.

    On a slow machine (`patience`) later.
    """
    deadline = time.monotonic() + patience(seconds)
    pause = 0.002
    while True:
        value = condition()
        if value or (value == 0 and value is not False):
            return value
        if time.monotonic() > deadline:
            message = f"waited {seconds} s in vain for {what}"
            raise AssertionError(message)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def process_state(pid: int) -> str | None:
    """The state letter of /proc/<pid>/stat, None when there is no such process."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return None


def reap_orphans(keep: Collection[int] = ()) -> None:
    """Wait for every dead child of this process but those in `keep`."""
    for pid, said in descendants().items():
        if said.startswith("Z") and pid not in keep:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def signal_number(name: str) -> int:
    """The number of a signal by its full name."""
    return int(signal.Signals[name])


def lines(items: Iterable[object]) -> str:
    """One item a line, indented, for a message."""
    return "".join(f"\n  {item}" for item in items)
