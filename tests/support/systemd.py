"""systemd for tests: the machine's own, or one that is pid 1 of a container made here, in a third of a second.

Such a systemd has pid, mount, network, IPC, UTS and cgroup namespaces of its own, the root of the machine under an overlay, and a
group of its own in each cgroup hierarchy. In the view "v2" it sees cgroup2 alone, which on a host with version 1 lacks most
controllers.

A systemd cleans up, sets and makes things all over a machine when it boots. So nothing of the machine is writable in there but
one directory, `share`: /tmp and /dev are its own; the clone, /proc/sys and /sys are read-only. And sysinit.target, which does
such things, and which every ordinary unit asks for, is masked.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.build import ROOT
from tests.support.isolation import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUTS,
    MS_BIND,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    cgroup_mounts,
    mount,
    pivot_root,
    unshare,
)
from tests.support.patience import patience

PROGRAMS = (Path("/lib/systemd/systemd"), Path("/usr/lib/systemd/systemd"))
CLONE_NEWPID, CLONE_NEWCGROUP = 0x20000000, 0x02000000
CGROUP = Path("/sys/fs/cgroup")
PATIENCE = patience(60.0)  # seconds until it has to be up; on an emulated processor under load it takes 20

_MASKED = (
    "sysinit.target",
    "systemd-tmpfiles-setup.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-tmpfiles-clean.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-sysctl.service",
    "tmp.mount",
)
_NODES = ("null", "zero", "full", "random", "urandom", "tty")
_TARGET = "[Unit]\nDefaultDependencies=no\n"
# A user's systemd, without the PAM session and the login daemon that user@.service wants.
_USER = """[Unit]
DefaultDependencies=no

[Service]
Type=notify
User=1000
Slice=user-1000.slice
Delegate=yes
PAMName=
RuntimeDirectory=user/1000
RuntimeDirectoryMode=0700
Environment=XDG_RUNTIME_DIR=/run/user/1000
ExecStart=/lib/systemd/systemd --user --unit=ocirt.target --log-target=console
KillMode=mixed
"""


def program() -> Path | None:
    """The machine's systemd, None if there is none."""
    return next((path for path in PROGRAMS if path.exists()), None)


def is_running() -> bool:
    """Whether the machine itself runs under systemd."""
    return Path("/run/systemd/system").is_dir()


class Systemd:
    """One systemd: `prefix` goes before a command that is to run beside it, `pid` is its process (0: the machine's own).

    What both see, and may write, is in `share`.
    """

    def __init__(self, view: str, work: Path) -> None:
        """Start it, in `view` "v2" or "hybrid". Raises RuntimeError with its log when it does not come up."""
        self.view = view
        self.share = work / "share"
        self.share.mkdir()
        self.share.chmod(0o755)
        self.pid = 0
        self.user_started = False
        self.prefix: list[str] = []
        self._groups: list[Path] = []
        if is_running():
            return
        # Without the session's token: slices stay as long as systemd does, which is no leak of the test that had one made.
        name = f"ocirt-systemd-{secrets.token_hex(4)}"
        self._groups = [path / name for path in hierarchies(view)]
        for path in self._groups:
            path.mkdir()
            for file in ("cpuset.cpus", "cpuset.mems"):
                if (path / "cpuset.cpu_exclusive").exists():
                    (path / file).write_text((path.parent / file).read_text())
        (work / "scratch").mkdir()
        command = [sys.executable, "-m", "tests.support.systemd", view, str(work), *map(str, self._groups)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        if done.returncode:
            self.stop()
            raise RuntimeError(done.stderr)
        self.pid = int(done.stdout)
        nsenter = shutil.which("nsenter") or "/usr/bin/nsenter"
        # From a cgroup that this systemd sees: where the machine's cgroup2 has nsdelegate it could not move others to its units.
        beside = next(path for path in self._groups if (path / "cgroup.type").exists()) / "init.scope/cgroup.procs"
        enter = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(beside)]
        self.prefix = [*enter, nsenter, "-t", str(self.pid), "-m", "-p", "-C", "-n", "-i", "-u", "-r", "-w", "--"]
        self._await()

    def _await(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            done = self.call("systemctl", "is-system-running")
            if done.stdout.strip() in ("running", "degraded"):
                return
            if time.monotonic() > deadline or os.waitpid(self.pid, os.WNOHANG) != (0, 0):
                log = Path(f"/proc/{self.pid}/root/run/boot.log")
                words = log.read_text() if log.exists() else ""
                self.stop()
                message = f"systemd is not up: {done.stdout}{done.stderr}\n{words}"
                raise RuntimeError(message)
            time.sleep(0.02)

    def call(self, *command: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command beside it."""
        argv = [*self.prefix, *map(str, command)]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"} | (env or {})
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=environment)

    def show(self, unit: str) -> dict[str, list[str]]:
        """The properties of a unit as `systemctl show` prints them: some come more than once."""
        found: dict[str, list[str]] = {}
        for line in self.call("systemctl", "show", unit).stdout.splitlines():
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
        return found

    def scopes(self) -> set[str]:
        """The scopes that it knows, but for its own."""
        lines = self.call("systemctl", "list-units", "--all", "--plain", "--no-legend", "--type=scope").stdout.splitlines()
        return {line.split()[0] for line in lines} - {"init.scope"}

    def directory(self, control_group: str) -> Path:
        """Where the tests see the (version 2) cgroup that it calls so."""
        if self.pid:
            return next(path for path in self._groups if (path / "cgroup.type").exists()) / control_group[1:]
        return CGROUP / control_group[1:]

    def roots(self) -> list[Path]:
        """Where the tests see the roots of its hierarchies."""
        return self._groups or cgroup_mounts()

    def directories(self) -> list[Path]:
        """All cgroups of containers, in all hierarchies."""
        # Not by Path.rglob, which fails where one goes meanwhile.
        found = [f"{path}/{name}" for root in self._groups or [CGROUP] for path, names, _ in os.walk(root) for name in names]
        return [Path(one) for one in found if one.endswith(".scope") and Path(one).name not in ("init.scope", "session-1.scope")]

    def start_user(self) -> dict[str, str]:
        """Start the systemd of user 1000; the environment in which it is found. Raises RuntimeError."""
        unit = Path(f"/proc/{self.pid or 1}/root/run/systemd/system/ocirt-user.service")
        if not unit.exists():
            unit.write_text(_USER)
            target = unit.parents[1] / "user" / "ocirt.target"
            target.parent.mkdir(exist_ok=True)
            target.write_text(_TARGET)
            self.call("systemctl", "daemon-reload")
            self.user_started = True
            done = self.call("systemctl", "start", "ocirt-user.service")
            if done.returncode:
                raise RuntimeError(done.stderr + self.call("systemctl", "status", "ocirt-user.service").stdout)
        return {"XDG_RUNTIME_DIR": "/run/user/1000"}

    def stop(self) -> None:
        """End it, with all that it holds; of the machine's own only the user's."""
        if not self.pid and self.user_started:
            self.call("systemctl", "stop", "ocirt-user.service")
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
        for path in self._groups:
            for directory, _, _ in os.walk(path, topdown=False):
                _remove(Path(directory))
        if self._groups:
            (self.share.parent / "scratch").rmdir()
        self._groups = []


def _remove(path: Path) -> None:
    # Its processes are dead, but may not be gone.
    deadline = time.monotonic() + 5
    while True:
        try:
            path.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def hierarchies(view: str) -> list[Path]:
    """The mount points of the hierarchies that a systemd in this view gets a group in."""
    unified = CGROUP if (CGROUP / "cgroup.controllers").exists() else CGROUP / "unified"
    if view == "v2":
        return [unified]
    return [unified, *(path for path in sorted(CGROUP.iterdir()) if path.name != "unified" and (path / "cgroup.procs").exists())]


def _show(path: Path, root: Path, *, read_only: bool = False) -> None:
    """Bind a directory to the same place below `root`."""
    target = Path(f"{root}{path}")
    target.mkdir(parents=True, exist_ok=True)
    mount(str(path), str(target), "", MS_BIND)
    if read_only:
        mount("", str(target), "", MS_BIND | MS_REMOUNT | MS_RDONLY)


def _devices(directory: Path) -> None:
    """A /dev with what programs need."""
    for name in _NODES:
        (directory / name).touch()
        mount(f"/dev/{name}", str(directory / name), "", MS_BIND)
    for name in ("pts", "shm", "mqueue"):
        (directory / name).mkdir()
    mount("devpts", f"{directory}/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    mount("tmpfs", f"{directory}/shm", "tmpfs", 0, "mode=1777")
    for name, target in (
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ):
        (directory / name).symlink_to(target)


def _boot(view: str, work: Path, groups: Sequence[Path]) -> None:
    """As a process of its own: become systemd, whose pid goes to stdout."""
    for path in groups:
        (path / "cgroup.procs").write_text("0")
    unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP | CLONE_NEWIPC | CLONE_NEWUTS)
    child = os.fork()
    if child:
        print(child)
        return
    mount("none", "/", "none", MS_REC | MS_PRIVATE)
    scratch = work / "scratch"
    mount("tmpfs", str(scratch), "tmpfs", 0)
    root = scratch / "root"
    for name in ("root", "upper", "work"):
        (scratch / name).mkdir()
    mount("overlay", str(root), "overlay", 0, f"lowerdir=/,upperdir={scratch}/upper,workdir={scratch}/work")
    for target, mode in (("/run", "755"), ("/tmp", "1777"), ("/var/tmp", "1777"), ("/dev", "755")):
        mount("tmpfs", f"{root}{target}", "tmpfs", 0, "mode=" + mode)
    # tmpfiles.d(5) says that /tmp be emptied at boot.
    mount("tmpfs", f"{root}/usr/lib/tmpfiles.d", "tmpfs", 0)
    _show(ROOT, root, read_only=True)
    _show(work / "share", root)
    _devices(root / "dev")
    mount("proc", f"{root}/proc", "proc", 0)
    mount(f"{root}/proc/sys", f"{root}/proc/sys", "", MS_BIND)
    mount("", f"{root}/proc/sys", "", MS_BIND | MS_REMOUNT | MS_RDONLY)
    mount("sysfs", f"{root}/sys", "sysfs", MS_RDONLY)
    if view == "v2":
        mount("cgroup2", f"{root}/sys/fs/cgroup", "cgroup2", 0)
    else:
        mount("tmpfs", f"{root}/sys/fs/cgroup", "tmpfs", 0, "mode=755")
        for path in groups:
            name = path.parent.name
            place = root / "sys/fs/cgroup" / name
            place.mkdir()
            if name == "unified":
                mount("cgroup2", str(place), "cgroup2", 0)
            else:
                mount("cgroup", str(place), "cgroup", 0, "none,name=systemd" if name == "systemd" else name)
    # Not chroot(2): who joins the mount namespace of a container made in there would see the machine's tree.
    os.chdir(root)
    pivot_root()
    units = Path("/run/systemd/system")
    units.mkdir(parents=True)
    (units / "ocirt.target").write_text(_TARGET)
    for name in _MASKED:
        (units / name).symlink_to("/dev/null")
    null, log = os.open("/dev/null", os.O_RDWR), os.open("/run/boot.log", os.O_CREAT | os.O_WRONLY)
    for number, fd in enumerate((null, log, log)):
        os.dup2(fd, number)
    os.closerange(3, 1024)
    environment = {"container": "ocirt-test", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    arguments = ["systemd", "--unit=ocirt.target", "--log-target=console", "--log-level=info", "--show-status=no"]
    os.execve(program() or "", arguments, environment)


if __name__ == "__main__":
    _boot(sys.argv[1], Path(sys.argv[2]), [Path(each) for each in sys.argv[3:]])
