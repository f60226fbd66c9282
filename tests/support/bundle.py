"""Bundles made from the machine's own busybox: no registry, no image.

A template of the root file system is made once; each bundle gets its own copy, whose programs are hard links where the file
system allows it.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support.build import cache_directory, compiled

Config = dict[str, Any]

_APPLETS = """
    ash cat chmod chown cut dd df dirname echo env expr false find grep head hostname id kill ln ls mkdir mkfifo mknod mount mv
    nproc printf ps pwd readlink rm rmdir sed seq sh sleep sort stat stty sync tail tee test touch tr true tty umount uname wc
"""
DIRECTORIES = ("bin", "dev", "etc", "home", "mnt", "proc", "root", "run", "sys", "tmp", "usr/bin", "var")
ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home:/bin/sh\n",
    "group": "root:x:0:\nalice:x:1000:\naudio:x:29:alice\n",
    "hostname": "",
}
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What `runc spec` grants.
CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
NAMESPACES = ("pid", "network", "ipc", "uts", "mount")
MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def busybox() -> Path:
    """The machine's statically linked busybox. Raises RuntimeError when there is none."""
    found = shutil.which("busybox", path=f"{os.environ.get('PATH', '')}:/bin:/usr/bin:/sbin:/usr/sbin")
    if found is None:
        message = "the tests need busybox: apt-get install busybox-static"
        raise RuntimeError(message)
    return Path(found).resolve()


def make_rootfs(target: Path) -> Path:
    """Make a small root file system in `target` (created) and return it."""
    for name in DIRECTORIES:
        (target / name).mkdir(parents=True, exist_ok=True)
    (target / "tmp").chmod(0o1777)
    for program, name in ((busybox(), "busybox"), (compiled("probe"), "probe")):
        _link_or_copy(program, target / "bin" / name)
    for applet in _APPLETS.split():
        (target / "bin" / applet).symlink_to("busybox")
    for name, text in ETC.items():
        (target / "etc" / name).write_text(text)
    return target


def _link_or_copy(source: Path, target: Path) -> None:
    # Hard links go to a copy of ours in the cache, never to the machine's own busybox: a test may chmod or chown a program.
    if source.parent != cache_directory():
        kept = cache_directory() / f"{source.name}-{int(source.stat().st_mtime)}"
        if not kept.exists():
            partial = kept.with_name(f".{kept.name}.{os.getpid()}")
            shutil.copy2(source, partial)
            partial.rename(kept)
        source = kept
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def default_mounts() -> list[Config]:
    """The mounts of `runc spec`, but for the cgroup mount."""
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    ]


def cgroup_mount() -> Config:
    """The cgroup mount of `runc spec`."""
    return {
        "destination": "/sys/fs/cgroup",
        "type": "cgroup",
        "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
    }


def default_config() -> Config:
    """A config.json close to `runc spec`: no terminal, no seccomp, a writable root, `true` as its program."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": [PATH, "TERM=xterm"],
            "cwd": "/",
            "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": "ocirt-test",
        "mounts": default_mounts(),
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": name} for name in NAMESPACES],
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READONLY),
        },
    }


def merge(base: Config, edits: Config) -> Config:
    """`edits` laid over `base`: dicts merge key by key, anything else replaces; the value None removes the key."""
    result = dict(base)
    for key, value in edits.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


# Keywords that stand for a place in config.json.
_PROCESS = (
    "args",
    "env",
    "cwd",
    "terminal",
    "user",
    "capabilities",
    "rlimits",
    "noNewPrivileges",
    "oomScoreAdj",
    "consoleSize",
)
_LINUX = (
    "namespaces",
    "resources",
    "cgroupsPath",
    "seccomp",
    "sysctl",
    "maskedPaths",
    "readonlyPaths",
    "devices",
    "uidMappings",
    "gidMappings",
    "rootfsPropagation",
)


def edited(
    config: Config,
    *,
    add_mounts: Sequence[Config] = (),
    namespaces: Sequence[str | Config] | None = None,
    edit: Callable[[Config], object] | None = None,
    **edits: Any,
) -> Config:
    """A copy of `config` with edits by keyword.

    A name of the process object (`args`, `env`, `terminal`, `user`, …) or of the linux object (`resources`, `seccomp`, …)
    replaces that value; any other name (`process`, `root`, `linux`, `hooks`, `hostname`, …) is merged at the top level. None
    removes. `add_mounts` are appended; `namespaces` takes plain names too; `edit` is called with the result, last.
    """
    result = copy.deepcopy(config)
    for key in list(edits):
        for names, section in ((_PROCESS, "process"), (_LINUX, "linux")):
            if key in names:
                value = edits.pop(key)
                if value is None:
                    result[section].pop(key, None)
                else:
                    result[section][key] = copy.deepcopy(value)
    result = merge(result, edits)
    if namespaces is not None:
        result["linux"]["namespaces"] = [{"type": item} if isinstance(item, str) else item for item in namespaces]
    result.setdefault("mounts", []).extend(copy.deepcopy(list(add_mounts)))
    if edit is not None:
        edit(result)
    return result


class Bundle:
    """A bundle on disk: `path`, its `rootfs`, and `config` as last written."""

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        self.config = config
        self.rootfs = path / "rootfs"
        if not self.rootfs.exists():
            make_rootfs(self.rootfs)
        self.write()

    def write(self, config: Config | None = None) -> None:
        """Write config.json, `config` or what `self.config` says now."""
        if config is not None:
            self.config = config
        (self.path / "config.json").write_text(json.dumps(self.config, indent=1))

    def edit(self, **edits: Any) -> Bundle:
        """Apply `edited` to the configuration, write it, and return self."""
        self.write(edited(self.config, **edits))
        return self


def make_bundle(path: Path, **edits: Any) -> Bundle:
    """Make a bundle in `path` (created): `default_config` with `edits` as `edited` takes them."""
    path.mkdir(parents=True, exist_ok=True)
    return Bundle(path, edited(default_config(), **edits))
