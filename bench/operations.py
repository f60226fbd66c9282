"""What is measured: each operation prepares, takes one sample, and clears up after itself."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import CommandFailedError, Sample, cpu_of, proportional_memory, sample, system_calls, through_pipe
from tests.seccomp_profiles import docker_default, small
from tests.support.bundle import Bundle, cgroup_mount, make_bundle
from tests.support.runtime import process_state, reap_orphans, wait_for

GIB = 1 << 30


@dataclass
class Peer:
    """A runtime: its name, its command, and a place for bundles and state; `parent` is where its cgroups go."""

    name: str
    command: list[str]
    work: Path
    parent: str
    view: str
    bundles: dict[str, Bundle] = field(default_factory=dict)
    containers: dict[str, int] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The state root."""
        return self.work / "root"

    def argv(self, *args: str | Path) -> list[str]:
        """A whole command line."""
        return [*self.command, "--root", str(self.root), *map(str, args)]

    def call(self, *args: str | Path) -> str:
        """Run a verb that is not measured; returns stdout. Raises CommandFailedError."""
        with (self.work / "said").open("w+") as said:
            # Not pipes: a detached container would hold them open.
            done = subprocess.run(self.argv(*args), stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False)
            said.seek(0)
            text = said.read()
        if done.returncode:
            message = f"{' '.join(self.argv(*args))}: exit code {done.returncode}: {text.strip()}"
            raise CommandFailedError(message)
        return text

    def bundle(self, kind: str) -> Path:
        """The bundle of this kind: what `runc spec` makes, plus what the kind says."""
        if kind not in self.bundles:
            args = {
                "sleep": ["/bin/sleep", "1000"],
                "docker, sleep": ["/bin/sleep", "1000"],
                "pipe": ["/bin/probe", "write", str(4 * GIB)],
                "held": ["/bin/probe", "catch"],
            }.get(kind, ["/bin/true"])
            seccomp = {"small": small, "docker": docker_default}.get(kind.partition(",")[0], lambda: None)()
            namespaces = ["pid", "network", "ipc", "uts", "mount", *(["cgroup"] if self.view == "v2" else [])]
            self.bundles[kind] = make_bundle(
                self.work / kind,
                args=args,
                seccomp=seccomp,
                namespaces=namespaces,
                root={"readonly": True},
                add_mounts=[cgroup_mount()],
                cgroupsPath=f"{self.parent}/{self.name}-{kind.replace(', ', '-')}",
            )
        return self.bundles[kind].path

    def pid(self, container: str) -> int:
        """The container's init."""
        return int(json.loads(self.call("state", container))["pid"])

    def resident(self, kind: str = "sleep") -> str:
        """A container that runs all the time, for exec, state and kill."""
        name = "resident-" + kind.replace(", ", "-")
        if name not in self.containers:
            self.call("run", "--detach", "--bundle", self.bundle(kind), name)
            self.containers[name] = self.pid(name)
        return name

    def close(self) -> None:
        """Remove what is left."""
        if self.root.is_dir():
            for entry in sorted(self.root.iterdir()):
                if entry.name[0].isalnum():
                    self.call("delete", "--force", entry.name)
        reap_orphans()


def run(peer: Peer) -> Sample:
    """`run` of /bin/true."""
    return sample(peer.argv("run", "--bundle", peer.bundle("true"), "c"))


def _run_with_profile(kind: str, cold: bool) -> Callable[[Peer], Sample]:
    def operation(peer: Peer) -> Sample:
        if cold:
            shutil.rmtree(peer.root / "@seccomp", ignore_errors=True)
        return sample(peer.argv("run", "--bundle", peer.bundle(kind), "c"))

    return operation


def _create(kind: str) -> Callable[[Peer], Sample]:
    def operation(peer: Peer) -> Sample:
        """`create`; the CPU time counts that of the waiting init."""
        result = sample(peer.argv("create", "--bundle", peer.bundle(kind), "c"))
        pid = peer.pid("c")
        result.cpu += cpu_of(pid)
        peer.call("delete", "--force", "c")
        reap_orphans()
        return result

    return operation


def _ended(pid: int) -> None:
    wait_for(lambda: process_state(pid) in (None, "Z"), f"the end of process {pid}")
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _sequence(kind: str, suffix: str = "") -> Callable[[Peer], dict[str, Sample]]:
    def operation(peer: Peer) -> dict[str, Sample]:
        """create, start, delete of one container: each, and the sum of the three."""
        steps = {"create": sample(peer.argv("create", "--bundle", peer.bundle(kind), "c"))}
        pid = peer.pid("c")
        before = cpu_of(pid)
        steps["start"] = sample(peer.argv("start", "c"))
        _ended(pid)
        steps["delete"] = sample(peer.argv("delete", "c"))
        total = steps["create"] + steps["start"] + steps["delete"]
        total.cpu += before
        whole = {"create + start + delete" + suffix: total}
        return whole if suffix else {"start": steps["start"], "delete": steps["delete"], **whole}

    return operation


def state(peer: Peer) -> Sample:
    """`state` of a running container."""
    return sample(peer.argv("state", peer.resident()))


def kill(peer: Peer) -> Sample:
    """`kill` with a signal that init ignores."""
    return sample(peer.argv("kill", peer.resident(), "USR1"))


def delete_force(peer: Peer) -> Sample:
    """`delete --force` of a running container."""
    peer.call("run", "--detach", "--bundle", peer.bundle("sleep2"), "d")
    result = sample(peer.argv("delete", "--force", "d"))
    reap_orphans()
    return result


def _execute(kind: str) -> Callable[[Peer], Sample]:
    def operation(peer: Peer) -> Sample:
        """`exec` of /bin/true in a container that runs all the time."""
        return sample(peer.argv("exec", peer.resident(kind), "/bin/true"))

    return operation


def execute_20(peer: Peer) -> Sample:
    """20 of them at once, until the last has ended."""
    return sample(peer.argv("exec", peer.resident(), "/bin/true"), count=20)


def pipe(peer: Peer) -> Sample:
    """4 GiB through the pipe of an attached run."""
    return through_pipe(peer.argv("run", "--bundle", peer.bundle("pipe"), "p"), 4 * GIB)


# Taken once a round.
OPERATIONS: dict[str, Callable[[Peer], Sample | dict[str, Sample]]] = {
    "run": run,
    "run, small profile": _run_with_profile("small", cold=False),
    "run, docker's profile": _run_with_profile("docker", cold=False),
    "run, docker's profile, cold cache": _run_with_profile("docker", cold=True),
    "create": _create("true"),
    "create, docker's profile": _create("docker"),
    "create + start + delete": _sequence("true"),
    "create + start + delete, docker's profile": _sequence("docker", ", docker's profile"),
    "exec": _execute("sleep"),
    "exec, docker's profile": _execute("docker, sleep"),
    "exec, 20 at once": execute_20,
    "state": state,
    "kill": kill,
    "delete --force": delete_force,
}
SLOW: dict[str, Callable[[Peer], Sample]] = {"4 GiB through a pipe": pipe}


def count_system_calls(peer: Peer) -> dict[str, int]:
    """System calls of run, create, exec and state, counted by strace in runs that are not timed."""

    def created() -> bool:
        with contextlib.suppress(CommandFailedError, ValueError):
            return bool(json.loads(peer.call("state", "s"))["status"] == "created")
        return False

    def remove() -> None:
        wait_for(created, "a created container under strace")
        peer.call("delete", "--force", "s")

    create_argv = peer.argv("create", "--bundle", peer.bundle("true"), "s")
    return {
        "run": system_calls(peer.argv("run", "--bundle", peer.bundle("true"), "c")),
        "create": system_calls(create_argv, remove),
        "exec": system_calls(peer.argv("exec", peer.resident(), "/bin/true")),
        "state": system_calls(peer.argv("state", peer.resident())),
    }


def memory_held(peer: Peer) -> float:
    """What an attached run holds while its container runs (MiB): proportional memory of the runtime's own processes."""
    with subprocess.Popen(
        peer.argv("run", "--bundle", peer.bundle("held"), "h"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            message = f"{peer.name}: an attached run did not start"
            raise CommandFailedError(message)
        time.sleep(0.05)
        held = proportional_memory(process.pid)
        peer.call("kill", "h", "TERM")
        process.wait()
    return held


def smallest_memory_limit(peer: Peer) -> float:
    """The smallest memory limit (MiB, in steps of 64 KiB) in which /bin/true starts three times out of three."""

    def starts(blocks: int) -> bool:
        made = peer.bundles.get("limit") or make_bundle(
            peer.work / "limit",
            root={"readonly": True},
            add_mounts=[cgroup_mount()],
            cgroupsPath=f"{peer.parent}/{peer.name}-limit",
        )
        peer.bundles["limit"] = made
        limit = blocks << 16
        made.edit(resources={"memory": {"limit": limit, "swap": limit}, "devices": [{"allow": False, "access": "rwm"}]})
        for _ in range(3):
            result = sample(peer.argv("run", "--bundle", made.path, "m"), may_fail=True)
            if result.wall < 0:
                with contextlib.suppress(CommandFailedError):
                    peer.call("delete", "--force", "m")
                reap_orphans()
                return False
        return True

    low, high = 0, 1024  # 64 MiB
    if not starts(high):
        message = f"{peer.name}: /bin/true does not start in 64 MiB"
        raise CommandFailedError(message)
    while high - low > 1:
        middle = (low + high) // 2
        if starts(middle):
            high = middle
        else:
            low = middle
    return high / 16
