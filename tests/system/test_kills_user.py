"""SIGKILL of the runtime, the stage and init of a container with all that makes a start long.

A user namespace beside a UTS namespace that is joined (which takes a stage), an id-mapped mount, a terminal, hooks of all kinds.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.attacks import without
from tests.support.bundle import Bundle
from tests.support.disks import load_modules, mount_mappable
from tests.support.isolation import mount, umount
from tests.support.kills import PATIENCE, Call, Point, Watch, chosen, killed_at, of_process, of_runtime, trace, who
from tests.support.runtime import Runtime
from tests.support.terminal import ConsoleSocket
from tests.system.conftest import MakeBundle
from tests.system.test_namespaces import with_user_namespace

pytestmark = pytest.mark.ocirt_only("runc leaves things behind here (opencontainers/runc issue 4534)")

MOST = 40  # points of one test, unless all are tried
KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


@pytest.fixture(scope="module", autouse=True)
def modules() -> None:
    """What `mount_mappable` needs."""
    load_modules()


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Path]:
    """A UTS namespace, held by a mount."""
    place = tmp_path / "uts"
    place.touch()
    with subprocess.Popen(
        ["unshare", "--uts", "sh", "-c", "echo; read line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as own:
        assert own.stdout is not None
        own.stdout.readline()
        mount(f"/proc/{own.pid}/ns/uts", str(place), "none", 0x1000)
        assert own.stdin is not None
        own.stdin.close()
    yield place
    umount(str(place))


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A file system whose ids can be mapped: the machine's own may be one that cannot."""
    place = tmp_path / "tree"
    place.mkdir()
    mount_mappable(place, tmp_path)
    yield place
    umount(str(place))


@pytest.fixture
def long(bundle: MakeBundle, names: Path, tree: Path) -> Bundle:
    """The bundle."""
    made = bundle(
        args=["/bin/true"],
        terminal=True,
        hostname=None,
        hooks={kind: [{"path": "/bin/true", "args": ["true", kind]}] for kind in KINDS},
        add_mounts=[{"destination": "/mapped", "type": "bind", "source": str(tree), "options": ["rbind", "ro", "idmap"]}],
    )
    with_user_namespace(made)
    (entry,) = (one for one in made.config["linux"]["namespaces"] if one["type"] == "uts")
    entry["path"] = str(names)
    return made


class Starts:
    """`run --detach` of a bundle with a terminal, over and over."""

    def __init__(self, runtime: Runtime, made: Bundle, watch: Watch, work: Path) -> None:
        self.runtime = runtime
        self.made = made
        self.watch = watch
        self.work = work

    def argv(self, verb: str, container: str, console: ConsoleSocket) -> list[str]:
        """The command line; the console goes to a socket that nobody reads from."""
        self.runtime.prepare(self.made, container)
        flags = ["--detach"] if verb == "run" else []
        return self.runtime.argv(verb, *flags, "--console-socket", console.path, "--bundle", self.made.path, container)

    def traced(self) -> list[Call]:
        """The calls of one that is not killed."""
        container = self.runtime.new_id()
        with ConsoleSocket(self.work / "first") as console:
            calls = trace(self.argv("run", container, console), self.work / "log")
        self.watch.delete("first", container)
        self.watch.nothing_left("first", container)
        return calls

    def killed(self, verb: str, point: Point, *, children: bool, code: int) -> None:
        """One that is killed there, and deleted."""
        container = self.runtime.new_id()
        with ConsoleSocket(self.work / container) as console:
            death = killed_at(self.argv(verb, container, console), point, children=children)
        reached = self.watch.count(death, code)
        if children:
            if reached and death.said.count("\n") != 1:
                self.watch.complain(point, f"it says {death.said!r}")
            if death.code not in (0, 1):
                self.watch.complain(point, f"exit code {death.code}: {death.said!r}")
        if not children or not reached:
            self.watch.delete(point, container)
        self.watch.nothing_left(point, container)
        (self.work / container).unlink(missing_ok=True)

    def dies(self, where: str, env: Mapping[str, str] | None = None) -> None:
        """One in which a side dies at its Nth call, "SIDE:N"."""
        container = self.runtime.new_id()
        with ConsoleSocket(self.work / container) as console, (self.work / "said").open("w+") as said:
            argv = [*without("die"), *self.argv("run", container, console)[len(self.runtime.command) :]]
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env={**os.environ, "DIE": where, **(env or {})},
                timeout=PATIENCE,
                check=False,
            )
            said.seek(0)
            words = said.read()
        (self.work / container).unlink(missing_ok=True)
        if env:
            assert done.returncode == 0, words
        else:
            self.watch.points += 1
            self.watch.killed += done.returncode != 0
            if done.returncode not in (0, 1, -signal.SIGKILL):
                self.watch.complain(where, f"exit code {done.returncode}: {words!r}")
        # A command that could tell has taken everything back itself.
        if done.returncode != 1:
            self.watch.delete(where, container)
        elif words.count("\n") != 1:
            self.watch.complain(where, f"it says {words!r}")
        self.watch.nothing_left(where, container)


@pytest.fixture
def starts(runtime: Runtime, long: Bundle, watch: Watch, tmp_path: Path) -> Starts:
    """Starts of that bundle."""
    return Starts(runtime, long, watch, tmp_path)


@pytest.mark.parametrize("verb", ["create", "run"])
def test_the_runtime_is_killed(starts: Starts, verb: str) -> None:
    """At every step of its own: `delete --force` leaves nothing."""
    calls = starts.traced()
    for point in chosen(of_runtime(calls, "root/"), MOST):
        starts.killed(verb, point, children=False, code=-signal.SIGKILL)


def test_init_is_killed(starts: Starts) -> None:
    """At every step of its own: the runtime says so in a line, exits with 1, and has taken everything back."""
    calls = starts.traced()
    for point in chosen(of_process(calls, who(calls, r"^\d+ +pivot_root")), MOST):
        starts.killed("run", point, children=True, code=1)


@pytest.mark.parametrize("side", ["parent", "stage", "init"])
def test_a_side_is_killed(starts: Starts, side: str, tmp_path: Path) -> None:
    """At every call, counted inside of the runtime: the stage makes few calls that no other process makes before."""
    count = tmp_path / "count"
    count.touch()
    starts.dies(f"{side}:0", {"DIE_COUNT": str(count)})
    points = int(count.read_text())
    assert points >= 3
    for number in chosen([*range(1, points + 1)], MOST):
        starts.dies(f"{side}:{number}")
