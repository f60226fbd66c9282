"""How the tests call each client: with storage, state and configuration of its own in a temporary directory."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundle import make_rootfs
from tests.support.isolation import MS_BIND, mount, mount_targets, remove_tree, umount
from tests.support.leaks import descendants
from tests.support.runtime import Result, default_command, wait_for

TIMEOUT = 60.0  # seconds for one command
IMAGE = "localhost/ocirt-test"
_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


def program(name: str) -> str | None:
    """Where a program of the machine is, None if it has none."""
    return shutil.which(name, path=_PATH)


def need(*names: str) -> None:
    """Skip the test unless the machine has all these programs."""
    missing = [name for name in names if program(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def ours() -> str:
    """The runtime under test: one word, as clients take no more."""
    command = default_command()
    if len(command) != 1:
        pytest.skip("clients take a runtime of one word; OCIRT_TEST_RUNTIME has more")
    path = os.path.abspath(command[0])
    if not os.access(path, os.X_OK):
        pytest.fail(f"{path} is not there: run `make` first", pytrace=False)
    return path


def peer() -> str:
    """runc: what OCIRT_TEST_PEER names, else `runc-new` or `runc` of the machine. Skips the test where there is none."""
    found = os.environ.get("OCIRT_TEST_PEER") or program("runc-new") or program("runc")
    if found is None:
        pytest.skip("nothing to compare with: runc is not installed (neither runc-new nor runc is in PATH)")
    return found


def runtime_path(name: str) -> str:
    """`ocirt` for ours, `runc` for the peer."""
    return ours() if name == "ocirt" else peer()


def call(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: str | None = None,
    timeout: float = TIMEOUT,
) -> Result:
    """Run a command to its end. Its output goes through files: a pipe would wait for what the command leaves running."""
    reader, writer = os.memfd_create("out"), os.memfd_create("err")
    try:
        done = subprocess.run(
            argv,
            input=None if stdin is None else stdin.encode(),
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=reader,
            stderr=writer,
            env=env,
            cwd=env["HOME"],  # conmon writes a file `oom` into it
            timeout=timeout,
            check=False,
        )
        texts = [os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="backslashreplace") for fd in (reader, writer)]
    finally:
        os.close(reader)
        os.close(writer)
    return Result(tuple(argv), done.returncode, texts[0], texts[1])


class Machine:
    """A directory that stands for a machine: nothing outside of it is written, but for the cgroups below `cgroup_parent`."""

    def __init__(self, path: Path, token: str, cgroup_parent: str) -> None:
        self.path = path
        self.token = token
        self.cgroup_parent = cgroup_parent
        self.rootfs = make_rootfs(path / "rootfs")
        self.image = path / "image.tar"
        with tarfile.open(self.image, "w") as archive:
            archive.add(self.rootfs, ".")
        self.image.chmod(0o644)
        self.kept: set[int] = set()  # processes that stay from one test to the next
        self._covered: list[str] = []
        self.env = {
            "PATH": _PATH,
            "HOME": str(path),
            "TMPDIR": str(path),
            "CONTAINERS_CONF": str(path / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(path / "storage.conf"),
        }
        # The runtimes' state: podman's clean-up does not get the --runtime-flag that podman got. Then caches of the clients.
        for place in ("/run", "/var/lib/containers", "/var/lib/cni"):
            if os.path.isdir(place):
                self.cover(place)
        self._configure()

    def _configure(self) -> None:
        def limit(name: str, number: int, most: int) -> str:
            hard = resource.getrlimit(number)[1]
            value = most if hard == resource.RLIM_INFINITY else min(hard, most)
            return f"{name}={value}:{value}"

        # podman's defaults are above what a machine without CAP_SYS_RESOURCE can give.
        limits = [limit("nofile", resource.RLIMIT_NOFILE, 1024), limit("nproc", resource.RLIMIT_NPROC, 4096)]
        names = [Path(ours()).name, "runc", "runc-new"]
        # Podman 4 reads the second spelling of "nocgroups", whatever its manual says.
        (self.path / "containers.conf").write_text(
            f"""\
[containers]
default_ulimits = {json.dumps(limits)}
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime_supports_json = {json.dumps(names)}
runtime_supports_nocgroups = {json.dumps(names)}
runtime_supports_nocgroup = {json.dumps(names)}
[network]
network_config_dir = "{self.path}/networks"
"""
        )
        storage = self.path / "storage"
        (self.path / "storage.conf").write_text(
            f'[storage]\ndriver = "{self.driver}"\nrunroot = "{storage}/run"\ngraphroot = "{storage}/graph"\n'
        )

    @functools.cached_property
    def driver(self) -> str:
        """`overlay`, where directories of this machine can be its upper layers."""
        done = subprocess.run(["stat", "-f", "-c", "%T", str(self.path)], capture_output=True, text=True, check=True)
        return "vfs" if "overlay" in done.stdout else "overlay"

    def cover(self, place: str) -> None:
        """Mount an empty tmpfs, which only the tests see."""
        mount("tmpfs", place, "tmpfs", 0)
        self._covered.append(place)

    def remove(self) -> None:
        """Remove all of it. Raises AssertionError for processes that are still there."""
        wait_for(lambda: not self.processes(), "the end of what the clients started", 10)
        while self._covered:
            umount(self._covered.pop())
        for target in reversed(mount_targets()):
            if target.is_relative_to(self.path):
                with contextlib.suppress(OSError):
                    umount(str(target))
        remove_tree(self.path)

    def processes(self) -> list[int]:
        """The descendants of the tests that run, but for those that are to stay."""
        return [pid for pid, said in descendants().items() if not said.startswith("Z") and pid not in self.kept]


class User:
    """A user who is not root, with subordinate ids. Only the tests know of him: they cover the files of /etc by their own."""

    FILES = ("passwd", "group", "subuid", "subgid")

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        # Neither Debian nor systemd give anybody these. One for each run: the kernel counts keys and processes by user.
        self.uid = 60600 + os.getpid() % 500
        self.home = machine.path / "user"
        machine.path.chmod(0o711)
        lines = dict.fromkeys(self.FILES, "ocirt-test:1000000:65536")
        lines["passwd"] = f"ocirt-test:x:{self.uid}:{self.uid}::{self.home}:/bin/sh"
        lines["group"] = f"ocirt-test:x:{self.uid}:"
        for name, line in lines.items():
            known, covering = Path("/etc", name), machine.path / name
            known.touch()
            covering.write_text(f"{known.read_text() if name in ('passwd', 'group') else ''}{line}\n")
            mount(str(covering), str(known), "none", MS_BIND)
        for path in (self.home, self.home / "run"):
            path.mkdir(mode=0o700)
            os.chown(path, self.uid, self.uid)
        self.env = {**machine.env, "HOME": str(self.home), "USER": "ocirt-test", "TMPDIR": str(self.home)}
        self.env |= {"XDG_RUNTIME_DIR": f"{self.home}/run", "CONTAINERS_STORAGE_CONF": f"{machine.path}/user-storage.conf"}
        Path(self.env["CONTAINERS_STORAGE_CONF"]).write_text('[storage]\ndriver = "vfs"\n')
        self.env["CONTAINERS_CONF"] = f"{machine.path}/user-containers.conf"
        text = Path(machine.env["CONTAINERS_CONF"]).read_text()
        Path(self.env["CONTAINERS_CONF"]).write_text(text.replace(f"{machine.path}/networks", f"{self.home}/networks"))
        self._pause = 0
        self.prefix = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--inh-caps=-all", "--"]

    def can_read(self, path: str | Path) -> bool:
        """Whether this file is open to him, with all of its parents."""
        return subprocess.run([*self.prefix, "test", "-r", str(path)], env=self.env, check=False).returncode == 0

    def keep_pause(self) -> None:
        """Let the process stay with which podman keeps the user's namespaces from one call to the next."""
        with contextlib.suppress(FileNotFoundError):
            self._pause = int((self.home / "libpod" / "pause.pid").read_text())
            self.machine.kept.add(self._pause)

    def remove(self) -> None:
        """Uncover the files, and end podman's process. The directories go with the machine's."""
        self.keep_pause()
        if self._pause:
            os.kill(self._pause, signal.SIGKILL)
            self.machine.kept.remove(self._pause)
        for name in reversed(self.FILES):
            umount(f"/etc/{name}")


class Podman:
    """podman with one runtime, by root or by a user; all containers of one user are seen by every object of this class."""

    def __init__(self, machine: Machine, runtime: str, user: User | None = None) -> None:
        self.machine = machine
        self.runtime = runtime
        self.user = user
        self.env = user.env if user else machine.env

    def with_runtime(self, runtime: str) -> Podman:
        """The same podman with another runtime."""
        return Podman(self.machine, runtime, self.user)

    def argv(self, *args: str | Path) -> list[str]:
        """The whole command line of one call."""
        if self.user:
            place = self.user.home
            words = [*self.user.prefix, program("podman") or "podman", "--storage-driver", "vfs"]
        else:
            place = self.machine.path
            words = [program("podman") or "podman"]
            if self.machine.driver == "overlay":
                words += ["--storage-opt", "overlay.skip_mount_home=true"]  # else two podmans at once may mount it twice
        return [
            *words,
            *("--root", f"{place}/storage/graph", "--runroot", f"{place}/storage/run", "--tmpdir", f"{place}/libpod"),
            *("--runtime", self.runtime),
            *map(str, args),
        ]

    def call(self, *args: str | Path, **options: Any) -> Result:
        """Any verb; options as for `call` of this module."""
        return call(self.argv(*args), env=self.env, **options)

    def flags(self, *flags: str | Path) -> list[str | Path]:
        """What `run` and `create` get: no network unless the flags choose one, and (by root) a cgroup of the tests."""
        named = any(str(flag).partition("=")[0] in ("--network", "--net", "--uidmap") for flag in flags)
        parent = [] if self.user else ["--cgroup-parent", self.machine.cgroup_parent]
        return [*parent, *([] if named else ["--network", "none"]), *flags]

    def run(self, *args: str | Path, flags: Sequence[str | Path] = (), **options: Any) -> Result:
        """`run --rm` of a command in the image."""
        return self.call("run", "--rm", *self.flags(*flags), IMAGE, *args, **options)

    def start(self, *args: str | Path, flags: Sequence[str | Path] = ()) -> str:
        """`run --detach` of a command in the image, which has to succeed; the container's id."""
        return self.call("run", "--detach", *self.flags(*flags), IMAGE, *args).ok().out.strip()

    def inspect(self, container: str, field: str) -> str:
        """One field of `inspect`, as `.State.Status`."""
        return self.call("inspect", "--format", f"{{{{{field}}}}}", container).ok().out.strip()

    def clean_up(self) -> None:
        """Remove every container and wait for conmon and the clean-up that it starts."""
        self.call("rm", "--all", "--force", "--time", "0").ok()
        wait_for(lambda: not self.machine.processes(), "the end of conmon", 10)

    def need_cgroups(self) -> None:
        """Skip the test where this podman makes no cgroups."""
        if self.user and self.call("info", "--format", "{{.Host.CgroupsVersion}}").ok().out.strip() == "v1":
            pytest.skip("podman makes no cgroups of version 1 for a user who is not root")


@contextlib.contextmanager
def podman_storage(podman: Podman) -> Iterator[Podman]:
    """Import the image and make what podman makes once: a cgroup for its conmons, a process that keeps a user's namespace."""
    machine = podman.machine
    podman.call("import", machine.image, IMAGE).ok()
    podman.run("true")  # whatever comes of it: the tests will say
    if podman.user:
        podman.user.keep_pause()
    podman.clean_up()
    yield podman


SHIM = "io.containerd.ocirt.v2"  # ocirt's own, which lies beside the command
# The rest of containerd is not needed, and some of it leaves things on the machine.
_CRI = "io.containerd.grpc.v1.cri"
_WITHOUT = [
    _CRI,
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
    *(f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "blockfile", "btrfs", "devmapper", "zfs")),
]


def _cri(runtimes: Mapping[str, str], sandbox_image: str, place: Path) -> str:
    """The CRI plugin's configuration: runtime handlers by name, and nothing that a machine may lack."""
    lines = [f'[plugins."{_CRI}"]', f'sandbox_image = "{sandbox_image}"', "restrict_oom_score_adj = true"]
    lines += ["disable_hugetlb_controller = true", "disable_apparmor = true", 'stream_server_address = "127.0.0.1"']
    lines += [f'[plugins."{_CRI}".cni]', f'conf_dir = "{place}/cni"', f'bin_dir = "{place}/cni"']
    lines += [f'[plugins."{_CRI}".containerd]', f'default_runtime_name = "{next(iter(runtimes))}"']
    for name, path in runtimes.items():
        table = f'plugins."{_CRI}".containerd.runtimes.{name}'
        if path == SHIM:
            lines += [f"[{table}]", f'runtime_type = "{SHIM}"']
        else:
            lines += [f"[{table}]", 'runtime_type = "io.containerd.runc.v2"', f"[{table}.options]", f'BinaryName = "{path}"']
    return "\n".join(lines) + "\n"


class Containerd:
    """A containerd of our own; `runtimes` (handlers of pods, by name) and `sandbox_image`: with its CRI plugin.

    A runtime is what containerd's own shim is to execute, or SHIM. `programs`: the directory of a containerd, ctr and shim that
    are not the machine's.
    """

    def __init__(
        self,
        machine: Machine,
        name: str = "containerd",
        *,
        runtimes: Mapping[str, str] | None = None,
        sandbox_image: str = "",
        programs: Path | None = None,
    ) -> None:
        self.machine = machine
        self.programs = programs
        self.version = ""  # for who has several
        place = machine.path / f"{name}-containerd"
        self.address = f"{place}.sock"
        place.mkdir()
        configuration = place / "config.toml"
        without = [plugin for plugin in _WITHOUT if not (runtimes and plugin == _CRI)]
        configuration.write_text(
            f'version = 2\nroot = "{place}/root"\nstate = "{place}/state"\ndisabled_plugins = {json.dumps(without)}\n'
            f'[grpc]\naddress = "{self.address}"\n{_cri(runtimes, sandbox_image, place) if runtimes else ""}'
        )
        self._configuration = configuration
        self.log = place / "log"
        self.start()

    def start(self) -> None:
        """Start it; once more after it was killed."""
        # It looks for shims in PATH.
        places = [str(self.programs)] if self.programs else []
        path = ":".join([*places, self.machine.env["PATH"], os.path.dirname(ours())])
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self._program("containerd"), "--config", str(self._configuration), "--log-level", "debug"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.machine.env, "PATH": path},
            )
        self.machine.kept.add(self.process.pid)

    def _program(self, name: str) -> str:
        return str(self.programs / name) if self.programs else program(name) or name

    def ready(self) -> bool:
        """Whether it answers."""
        assert self.process.poll() is None, self.log.read_text()
        return os.path.exists(self.address) and call([*self.argv(), "version"], env=self.machine.env).rc == 0

    def argv(self) -> list[str]:
        """How ctr finds it."""
        return [self._program("ctr"), "--address", self.address]

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(20)
        self.machine.kept.discard(self.process.pid)
