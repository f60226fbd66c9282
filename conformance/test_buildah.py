"""`buildah run` and `buildah build` with ocirt, and with runc."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.drivers import Machine, call, need, program, runtime_path
from tests.support.runtime import Result, wait_for
from tests.support.terminal import Terminal


class Buildah:
    """buildah with one runtime, and a working container made from the machine's root file system."""

    def __init__(self, machine: Machine, runtime: str) -> None:
        self.machine = machine
        self.runtime = runtime
        self.env = machine.env
        self.container = ""
        # To buildah that is the container's cgroup itself, which goes with it.
        self.cgroup = f"{machine.cgroup_parent}/buildah"

    def argv(self, *args: str | Path) -> list[str]:
        """The whole command line of one call."""
        place = self.machine.path / "buildah"
        return [program("buildah") or "buildah", "--root", f"{place}/graph", "--runroot", f"{place}/run", *map(str, args)]

    def call(self, *args: str | Path, **options: Any) -> Result:
        """Any verb."""
        return call(self.argv(*args), env=self.env, **options)

    def make(self, image: str = "scratch") -> None:
        """The working container."""
        self.container = self.call("from", "--cgroup-parent", self.cgroup, image).ok().out.strip()
        if image == "scratch":
            self.call("copy", self.container, self.machine.rootfs, "/").ok()

    def words(self, *args: str, flags: tuple[str, ...] = ()) -> list[str]:
        """What runs a command in it."""
        return ["run", "--runtime", self.runtime, "--isolation", "oci", "--network", "none", *flags, self.container, *args]

    def build(self, place: Path, *lines: str, flags: tuple[str, ...] = ()) -> Result:
        """`build` of these lines upon the machine's root file system, as `localhost/ocirt-built`."""
        shutil.copy(self.machine.image, place / "image.tar")
        (place / "Containerfile").write_text("\n".join(("FROM scratch", "ADD image.tar /", *lines, "")))
        own = ["--runtime", self.runtime, "--isolation", "oci", "--network", "none"]
        return self.call("build", *own, *flags, "--cgroup-parent", self.cgroup, "--tag", "ocirt-built", place)

    def run(self, *args: str, flags: tuple[str, ...] = (), **options: Any) -> Result:
        """`run` of a command in it."""
        return self.call(*self.words(*args, flags=flags), **options)


@pytest.fixture(params=["ocirt", "runc"])
def buildah(request: pytest.FixtureRequest, machine: Machine, no_leaks: list[Path]) -> Iterator[Buildah]:
    """buildah with ocirt, then with runc."""
    need("buildah")
    made = Buildah(machine, runtime_path(request.param))
    made.make()
    yield made
    made.call("rm", "--all").ok()
    made.call("rmi", "--all", "--force").ok()
    wait_for(lambda: not machine.processes(), "the end of what buildah started", 10)


def test_run(buildah: Buildah) -> None:
    """Output and exit code; what one run writes the next one reads."""
    result = buildah.run("/bin/sh", "-c", "echo out; echo err >&2; echo kept >/file; exit 7")
    assert (result.rc, result.out) == (7, "out\n")
    assert "err\n" in result.err
    assert buildah.run("/bin/cat", "/file").ok().out == "kept\n"


def test_run_with_flags(buildah: Buildah, tmp_path: Path) -> None:
    """User, environment, directory, capabilities, a bind mount, stdin."""
    (tmp_path / "file").write_text("text\n")
    tmp_path.chmod(0o755)
    flags = ("--user", "1000:29", "--env", "A=b", "--workingdir", "/tmp", "--volume", f"{tmp_path}:/data:ro")
    script = "id -u; echo $A; pwd; cat /data/file; touch /data/x || echo refused"
    assert buildah.run("/bin/sh", "-c", script, flags=flags).ok().out == "1000\nb\n/tmp\ntext\nrefused\n"
    fewer = ("--cap-drop", "CAP_KILL", "--hostname", "there")
    status = buildah.run("/bin/sh", "-c", "grep CapEff /proc/self/status; hostname", flags=fewer).ok().out.split()
    assert not int(status[1], 16) & 1 << 5
    assert status[2] == "there"
    assert buildah.run("/bin/cat", stdin="from outside\n").ok().out == "from outside\n"


def test_run_in_a_terminal(buildah: Buildah) -> None:
    """`--terminal` gives it one."""
    with Terminal(
        buildah.argv(*buildah.words("/bin/sh", "-c", "tty; exit 3", flags=("--terminal",))), env=buildah.env
    ) as terminal:
        assert terminal.wait() == 3
        assert b"/dev/pts/0" in terminal.output


def test_run_of_what_is_not_there(buildah: Buildah) -> None:
    """The runtime's words reach the user."""
    buildah.run("/no/such/program").failed("/no/such/program.*no such file or directory")
    buildah.run("/etc/passwd").failed("permission denied")


def test_build(buildah: Buildah, tmp_path: Path) -> None:
    """RUN in a Containerfile."""
    run = "RUN echo $WORD >/result && test $(id -u) = 0"
    buildah.build(tmp_path, "ENV WORD=built", run, "USER 1000", "RUN test $(id -u) = 1000").ok()
    buildah.make("localhost/ocirt-built")
    assert buildah.run("/bin/cat", "/result").ok().out == "built\n"


def test_a_failing_build(buildah: Buildah, tmp_path: Path) -> None:
    """The exit code of a RUN ends it."""
    buildah.build(tmp_path, "RUN exit 9").failed("exit status 9")


@pytest.mark.parametrize(
    ("flags", "script"),
    [
        ((), "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status"),
        (("--cap-add", "CAP_NET_ADMIN", "--cap-drop", "CAP_CHOWN"), "grep ^Cap /proc/self/status"),
        ((), "cut -d ' ' -f 2-4 /proc/mounts | grep -v -E '^(/ |/proc/|/sys/)' | sort"),
        (("--mount", "type=tmpfs,destination=/scratch,tmpfs-size=64k"), "grep ' /scratch ' /proc/mounts"),
        (("--user", "alice"), "id; echo $HOME"),
        ((), "sh -c 'kill -KILL $$'; exit $?"),
        ((), "ls /dev; ulimit -n; umask; cat /proc/self/oom_score_adj"),
    ],
)
def test_run_as_with_runc(machine: Machine, no_leaks: list[Path], flags: tuple[str, ...], script: str) -> None:
    """Exit code and output are runc's, word for word."""
    need("buildah")
    results = []
    for runtime in ("ocirt", "runc"):
        made = Buildah(machine, runtime_path(runtime))
        made.make()
        results.append(made.run("/bin/sh", "-c", script, flags=flags))
        made.call("rm", "--all").ok()
    seen, expected = ((result.rc, result.out) for result in results)
    assert seen == expected, results[0].err


def test_limits_of_a_build(buildah: Buildah, tmp_path: Path) -> None:
    """`build --memory` and `--cpu-quota` reach the cgroup of each RUN."""
    if not Path("/sys/fs/cgroup/memory").is_dir():
        pytest.skip("looks at the controllers of cgroup version 1")
    read = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
    buildah.build(tmp_path, f"RUN {read} >/seen", flags=("--memory", "64m", "--cpu-period", "50000", "--cpu-quota", "20000")).ok()
    buildah.make("localhost/ocirt-built")
    assert buildah.run("/bin/cat", "/seen").ok().out.split() == [str(64 << 20), "20000"]
