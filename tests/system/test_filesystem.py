"""The container's tree: its root, its mounts, what is masked, and /dev."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundle import Bundle
from tests.support.isolation import MS_BIND, MS_PRIVATE, MS_REC, MS_SHARED, mount, umount
from tests.support.runtime import Runtime
from tests.system.conftest import MakeBundle


@dataclass(frozen=True)
class Mount:
    """A line of /proc/self/mountinfo."""

    root: str
    target: str
    options: frozenset[str]
    tags: str
    kind: str
    source: str
    data: frozenset[str]


def mounts_in(runtime: Runtime, bundle: Bundle, **edits: Any) -> dict[str, Mount]:
    """What is mounted in the bundle's container, by target (the topmost)."""
    text = runtime.run(bundle.edit(args=["cat", "/proc/self/mountinfo"], **edits)).ok().out
    found = {}
    for line in text.splitlines():
        _, _, _, root, target, options, *rest = line.split()
        end = rest.index("-")
        kind, source, data = rest[end + 1 :]
        split = [frozenset(words.split(",")) for words in (options, data)]
        found[target] = Mount(root, target, split[0], " ".join(rest[:end]), kind, source, split[1])
    return found


def stat_in(runtime: Runtime, bundle: Bundle, *paths: str, **edits: Any) -> dict[str, Any]:
    """What the probe's lstat says of each path."""
    out = runtime.run(bundle.edit(args=["/bin/probe", "stat", *paths], **edits)).ok().out
    return {item["path"]: item for item in map(json.loads, out.splitlines())}


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory that is a shared mount of the host, with a file system mounted below it."""
    path = tmp_path / "shared"
    path.mkdir()
    mount("tmpfs", str(path), "tmpfs", 0)
    mount("none", str(path), "none", MS_SHARED)
    (path / "below").mkdir()
    mount("tmpfs", str(path / "below"), "tmpfs", 0)
    (path / "below" / "file").write_text("below")
    yield path
    subprocess.run(["umount", "--recursive", path], check=True)


def test_default_mounts(runtime: Runtime, bundle: MakeBundle) -> None:
    """Type and options of what `runc spec` mounts; nothing of the host is left in the tree."""
    found = mounts_in(runtime, bundle())
    expected = {
        "/proc": ("proc", {"rw"}),
        "/dev": ("tmpfs", {"rw", "nosuid"}),
        "/dev/pts": ("devpts", {"rw", "nosuid", "noexec", "relatime"}),
        "/dev/shm": ("tmpfs", {"rw", "nosuid", "nodev", "noexec"}),
        "/dev/mqueue": ("mqueue", {"rw", "nosuid", "nodev", "noexec"}),
        "/sys": ("sysfs", {"ro", "nosuid", "nodev", "noexec"}),
    }
    for target, (kind, options) in expected.items():
        assert found[target].kind == kind
        assert options <= found[target].options, target
    assert {"mode=755", "size=65536k"} <= found["/dev"].data
    assert {"mode=620", "ptmxmode=666", "gid=5"} <= found["/dev/pts"].data
    masked = set(bundle().config["linux"]["maskedPaths"]) | set(bundle().config["linux"]["readonlyPaths"])
    assert set(found) - masked == {"/", *expected}


def test_root_is_writable_or_not(runtime: Runtime, bundle: MakeBundle) -> None:
    """`root.readonly`."""
    made = bundle()
    runtime.shell(made, "echo x > /written").ok()
    assert (made.rootfs / "written").read_text() == "x\n"
    made.edit(root={"readonly": True})
    assert "Read-only file system" in runtime.shell(made, "echo x > /more").failed().err
    runtime.shell(made, "echo x > /dev/shm/file").ok()


def test_host_root_is_gone(runtime: Runtime, bundle: MakeBundle) -> None:
    """`..` of the root is the root, and the old root is not mounted anywhere."""
    made = bundle(args=["ls", "/.."])
    assert set(runtime.run(made).ok().out.split()) >= {"bin", "proc"}
    assert mounts_in(runtime, made)["/"].kind != "rootfs"
    assert not any("oldroot" in target or "pivot" in target for target in mounts_in(runtime, made))


def test_bind_mounts(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """A directory and a file, read-write and read-only; targets that are missing are made."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("words\n")
    made = bundle(
        add_mounts=[
            {"destination": "/data/rw", "type": "bind", "source": str(source), "options": ["rbind", "rw"]},
            {"destination": "/data/ro", "type": "bind", "source": str(source), "options": ["rbind", "ro"]},
            {
                "destination": "/data/some/file",
                "type": "bind",
                "source": str(source / "file"),
                "options": ["bind", "ro", "noexec"],
            },
        ],
    )
    script = "cat /data/some/file; echo new > /data/rw/new; cat /data/ro/new; echo x > /data/ro/x; echo x > /data/some/file"
    result = runtime.shell(made, script)
    assert result.out == "words\nnew\n"
    assert result.err.count("Read-only file system") == 2
    found = mounts_in(runtime, made)
    assert found["/data/some/file"].options >= {"ro", "noexec"}
    assert "ro" not in found["/data/rw"].options
    assert (source / "new").read_text() == "new\n"


def test_bind_of_a_relative_source(runtime: Runtime, bundle: MakeBundle) -> None:
    """Relative to the bundle."""
    made = bundle(add_mounts=[{"destination": "/data", "type": "bind", "source": "extra", "options": ["bind"]}])
    (made.path / "extra").mkdir()
    (made.path / "extra" / "file").write_text("here\n")
    assert runtime.run(made.edit(args=["cat", "/data/file"])).ok().out == "here\n"


def test_bind_with_and_without_what_is_below(runtime: Runtime, bundle: MakeBundle, shared: Path) -> None:
    """`bind` takes one mount, `rbind` those below it too; recursive attributes reach these."""
    made = bundle(
        add_mounts=[
            {"destination": "/one", "type": "bind", "source": str(shared), "options": ["bind"]},
            {"destination": "/all", "type": "bind", "source": str(shared), "options": ["rbind"]},
            {"destination": "/rro", "type": "bind", "source": str(shared), "options": ["rbind", "rro", "rnoexec"]},
            {"destination": "/top", "type": "bind", "source": str(shared), "options": ["rbind", "ro"]},
        ],
    )
    found = mounts_in(runtime, made)
    assert "/one/below" not in found
    assert "rw" in found["/all/below"].options
    assert {"ro", "noexec"} <= found["/rro/below"].options
    assert "ro" in found["/top"].options
    assert "rw" in found["/top/below"].options


def test_tmpfs_options(runtime: Runtime, bundle: MakeBundle) -> None:
    """Size, mode and flags."""
    options = ["nosuid", "nodev", "noexec", "size=64k", "mode=1750", "uid=7"]
    made = bundle(add_mounts=[{"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": options}])
    found = mounts_in(runtime, made)["/scratch"]
    assert found.options >= {"rw", "nosuid", "nodev", "noexec"}
    assert found.data >= {"size=64k", "mode=1750", "uid=7"}
    seen = stat_in(runtime, made, "/scratch")["/scratch"]
    assert (seen["mode"], seen["uid"]) == (0o1750, 7)


def test_tmpcopyup(runtime: Runtime, bundle: MakeBundle) -> None:
    """What was in the directory is in the tmpfs too."""
    made = bundle(add_mounts=[{"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}])
    assert runtime.shell(made, "echo more >> /etc/group; head -n 1 /etc/group").ok().out == "root:x:0:\n"
    assert "more" not in (made.rootfs / "etc/group").read_text()


def test_mount_order(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """In the order of config.json: the later one covers the earlier."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(f"{name}\n")
    binds = [
        {"destination": "/d", "type": "bind", "source": str(tmp_path / name), "options": ["bind"]} for name in ("first", "second")
    ]
    assert runtime.run(bundle(args=["cat", "/d/name"], add_mounts=binds)).ok().out == "second\n"


@pytest.mark.parametrize(
    ("option", "tag"), [("private", ""), ("shared", "shared:"), ("slave", "master:"), ("unbindable", "unbindable")]
)
def test_mount_propagation(runtime: Runtime, bundle: MakeBundle, shared: Path, option: str, tag: str) -> None:
    """Of one mount."""
    bind = {"destination": "/data", "type": "bind", "source": str(shared), "options": ["bind", option]}
    tags = mounts_in(runtime, bundle(add_mounts=[bind]))["/data"].tags
    assert tags.startswith(tag) if tag else not tags


def test_slave_sees_later_mounts(runtime: Runtime, bundle: MakeBundle, shared: Path) -> None:
    """With rslave what the host mounts later appears, with private it does not."""
    made = bundle(
        args=["sleep", "1000"],
        rootfsPropagation="rslave",
        add_mounts=[
            {"destination": "/slave", "type": "bind", "source": str(shared), "options": ["rbind", "rslave"]},
            {"destination": "/private", "type": "bind", "source": str(shared), "options": ["rbind", "rprivate"]},
        ],
    )
    (shared / "later").mkdir()
    container = runtime.run_detached(made)
    mount("tmpfs", str(shared / "later"), "tmpfs", 0)
    (shared / "later" / "file").write_text("later")
    seen = runtime.exec(container, "sh", "-c", "cat /slave/later/file; ls /private/later").ok()
    assert seen.out == "later"


@pytest.mark.parametrize(("value", "tag"), [(None, ""), ("private", ""), ("shared", "shared:"), ("unbindable", "unbindable")])
def test_root_propagation(runtime: Runtime, bundle: MakeBundle, shared: Path, value: str | None, tag: str) -> None:
    """`linux.rootfsPropagation`; the bundle lies on a shared mount of the host."""
    made = Bundle(shared / "below", bundle().config)
    tags = mounts_in(runtime, made, rootfsPropagation=value)["/"].tags
    assert tags.startswith(tag) if tag else "shared" not in tags


@pytest.mark.parametrize("value", ["", "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable"])
def test_a_host_whose_mounts_are_shared(runtime: Runtime, bundle: MakeBundle, tmp_path: Path, value: str) -> None:
    """As systemd makes them: what goes with the old root stays mounted on the host."""
    container = runtime.new_id()
    made = bundle(rootfsPropagation=value)
    runtime.prepare(made, container)
    script = 'mount --make-rshared / && cat /proc/self/mountinfo > "$0/before"; "$@"; cat /proc/self/mountinfo > "$0/after"'
    host = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    subprocess.run(
        [*host, tmp_path, *runtime.argv("run", "--bundle", made.path, container)], check=True, stdin=subprocess.DEVNULL
    )
    assert (tmp_path / "before").read_text().count(" shared:") > 3
    assert (tmp_path / "after").read_text() == (tmp_path / "before").read_text()


def test_masked_and_readonly_paths(runtime: Runtime, bundle: MakeBundle) -> None:
    """A masked file is empty, a masked directory too, a read-only path refuses writes; what does not exist is no error."""
    made = bundle(maskedPaths=["/secret/file", "/secret/dir", "/nope"], readonlyPaths=["/fixed", "/proc/sys", "/nope/either"])
    for path in ("secret/file", "secret/dir/file", "fixed/file"):
        (made.rootfs / path).parent.mkdir(parents=True, exist_ok=True)
        (made.rootfs / path).write_text("secret\n")
    script = "cat /secret/file; ls -A /secret/dir; cat /fixed/file; echo x > /secret/dir/x; echo x > /fixed/x"
    result = runtime.shell(made, script)
    assert result.out == "secret\n"
    assert result.err.count("Read-only file system") == 2
    masked = stat_in(runtime, made, "/secret/file")["/secret/file"]
    assert (masked["type"], masked["rdev"]) == ("char", [1, 3])
    assert "Read-only" in runtime.shell(made, "echo 1 > /proc/sys/net/ipv4/ip_forward").failed().err


DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


def test_default_devices(runtime: Runtime, bundle: MakeBundle) -> None:
    """Numbers and mode of the six devices, and the links beside them."""
    names = [f"/dev/{name}" for name in (*DEVICES, *LINKS)]
    seen = stat_in(runtime, bundle(), *names)
    for name, numbers in DEVICES.items():
        item = seen[f"/dev/{name}"]
        assert (item["type"], tuple(item["rdev"]), item["mode"], item["uid"]) == ("char", numbers, 0o666, 0), name
    for name, target in LINKS.items():
        assert seen[f"/dev/{name}"]["target"] == target
    listed = set(runtime.run(bundle(args=["ls", "/dev"])).ok().out.split())
    assert listed - {"core", "console"} == {*DEVICES, *LINKS, "pts", "shm", "mqueue"}


def test_more_devices(runtime: Runtime, bundle: MakeBundle) -> None:
    """Those of `linux.devices`: character, block, fifo; with mode and owner."""
    made = bundle(
        devices=[
            {"path": "/dev/mine", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6},
            {"path": "/dev/sub/disk", "type": "b", "major": 7, "minor": 99, "fileMode": 0o600},
            {"path": "/dev/queue", "type": "p", "fileMode": 0o622},
        ],
    )
    seen = stat_in(runtime, made, "/dev/mine", "/dev/sub/disk", "/dev/queue")
    mine, disk, queue = seen["/dev/mine"], seen["/dev/sub/disk"], seen["/dev/queue"]
    assert (mine["type"], mine["rdev"], mine["mode"], mine["uid"], mine["gid"]) == ("char", [10, 229], 0o640, 5, 6)
    assert (disk["type"], disk["rdev"], disk["mode"]) == ("block", [7, 99], 0o600)
    assert (queue["type"], queue["mode"]) == ("fifo", 0o622)


def test_device_rules(runtime: Runtime, bundle: MakeBundle) -> None:
    """What is denied cannot be opened, what is allowed can: the default devices always, the others by rule, the last one wins."""
    # A number without a driver: the cgroup's EPERM comes before ENXIO.
    device = {"path": "/dev/mine", "type": "c", "major": 1, "minor": 99, "fileMode": 0o666}
    rule = {"type": "c", "major": 1, "minor": 99, "access": "rw"}
    deny = {"allow": False, "access": "rwm"}
    made = bundle(devices=[device])

    def opened(path: str, *rules: dict[str, Any]) -> int:
        made.edit(args=["/bin/probe", "open", path], resources={"devices": rules})
        return int(runtime.run(made).ok().json()["errno"])

    assert opened("/dev/mine", deny) == errno.EPERM
    assert opened("/dev/null", deny) == 0
    assert opened("/dev/tty", deny) == errno.ENXIO  # there is no terminal
    assert opened("/dev/mine", deny, {"allow": True, **rule}) == errno.ENXIO
    assert opened("/dev/mine", deny, {"allow": True, **rule, "access": "r"}) == errno.EPERM
    assert opened("/dev/mine", deny, {"allow": True, "type": "c", "major": 1, "access": "rw"}) == errno.ENXIO
    assert opened("/dev/mine", deny, {"allow": True, **rule}, {"allow": False, **rule}) == errno.EPERM


def test_sysctl(runtime: Runtime, bundle: MakeBundle) -> None:
    """Of the container's own namespaces only: the host's stay."""
    values = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "1048576", "fs.mqueue.msg_max": "77", "net.core.somaxconn": "99"}
    paths = [f"/proc/sys/{name.replace('.', '/')}" for name in values]
    before = [Path(path).read_text() for path in paths]
    assert runtime.run(bundle(args=["cat", *paths], sysctl=values)).ok().out.split() == list(values.values())
    assert [Path(path).read_text() for path in paths] == before


def test_sysctl_in_a_container(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """There /proc/sys may be a mount of its own. What else is mounted in it is no sysctl, and is not written to."""
    name, fake = "/proc/sys/kernel/domainname", tmp_path / "fake"
    made = bundle(args=["cat", name], sysctl={"kernel.domainname": "inside"})
    mount("/proc/sys", "/proc/sys", "", MS_BIND | MS_REC)
    try:
        assert runtime.run(made).ok().out == "inside\n"
        fake.write_text("as it was")
        mount(str(fake), name, "", MS_BIND)
        try:
            runtime.run(made).failed("/linux/sysctl/kernel.domainname: .*: invalid cross-device link", rc=1)
        finally:
            umount(name)
        assert fake.read_text() == "as it was"
    finally:
        umount("/proc/sys")


def test_symlinks_stay_inside(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """A mount target that is a link of the image is resolved in the image, not on the host."""
    host = tmp_path / "host"
    host.mkdir()
    made = bundle(add_mounts=[{"destination": "/link/inside", "type": "tmpfs", "source": "tmpfs"}])
    (made.rootfs / "link").symlink_to(host)
    assert f"{host}/inside" in mounts_in(runtime, made)
    assert os.listdir(host) == []


def test_proc_on_a_link_is_refused(runtime: Runtime, bundle: MakeBundle) -> None:
    """An image whose /proc is a link (CVE-2019-19921) starts no container."""
    made = bundle()
    (made.rootfs / "proc").rmdir()
    (made.rootfs / "proc").symlink_to("/tmp")
    runtime.run(made).failed("proc", rc=1)


def test_no_mount_reaches_the_host(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """Even if the bundle lies on a shared mount and the container's root is shared (the search for leaks sees it otherwise)."""
    path = tmp_path / "shared"
    path.mkdir()
    mount("tmpfs", str(path), "tmpfs", 0)
    try:
        mount("none", str(path), "none", MS_SHARED)
        made = Bundle(path, bundle().config)
        container = runtime.run_detached(made.edit(args=["sleep", "1000"], rootfsPropagation="shared"))
        assert [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(path / "rootfs") in line] == []
        runtime.delete(container, "--force").ok()
    finally:
        mount("none", str(path), "none", MS_REC | MS_PRIVATE)
        umount(str(path))


def test_no_pivot(runtime: Runtime, bundle: MakeBundle) -> None:
    """`--no-pivot`, for a root in a ramdisk: the tree is moved, and nothing of the host's is in sight."""
    made = bundle(args=["sh", "-c", "ls /; cut -d' ' -f5 /proc/self/mountinfo"])
    plain = runtime.run(made).ok().out.split()
    assert set(runtime.run(made, "--no-pivot").ok().out.split()) >= set(plain)
    made.edit(args=["sh", "-c", f"cd / && ls ../../.. && test ! -e {made.path} && test ! -e ../..{made.path} && echo x > /mine"])
    assert set(runtime.run(made, "--no-pivot").ok().out.split()) >= {"bin", "etc", "proc"}
    assert (made.rootfs / "mine").read_text() == "x\n"
    made.edit(rootfsPropagation="private")
    if runtime.is_ocirt:
        runtime.run(made, "--no-pivot").failed("pivot", rc=1)


@pytest.mark.parametrize("options", [["remount", "ro"], ["remount", "rro"], ["remount", "ro", "private"]], ids="-".join)
def test_remount(runtime: Runtime, bundle: MakeBundle, options: list[str]) -> None:
    """A mount of the same container, changed; also where recursive flags and propagation stand beside it."""
    if not runtime.is_ocirt:
        pytest.skip("runc remounts bind mounts only")
    made = bundle(add_mounts=[{"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": options}])
    assert "ro" in mounts_in(runtime, made)["/dev/shm"].options


def test_mounts_in_a_read_only_tmpfs(runtime: Runtime, bundle: MakeBundle) -> None:
    """`ro` and `rro` of a tmpfs come true when what belongs into it is there."""
    mounts = [
        {"destination": "/one", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]},
        {"destination": "/one/below", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/two", "type": "tmpfs", "source": "tmpfs", "options": ["rro"]},
        {"destination": "/two/below", "type": "tmpfs", "source": "tmpfs"},
    ]
    found = mounts_in(runtime, bundle(add_mounts=mounts))
    assert ["ro" in found[target].options for target in ("/one", "/one/below", "/two", "/two/below")] == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("where", ["tmpfs", "rootfs"])
def test_a_console_in_a_read_only_dev(runtime: Runtime, bundle: MakeBundle, tmp_path: Path, where: str) -> None:
    """/dev/console is made before its directory becomes read-only."""
    from tests.support.terminal import ConsoleSocket, Reader  # noqa: PLC0415

    made = bundle(terminal=True, args=["sh", "-c", "echo up > /dev/console"], root={"readonly": True})
    for mount_ in made.config["mounts"]:
        if mount_["destination"] == "/dev":
            mount_["options"].append("ro")
    if where == "rootfs":
        made.config["mounts"] = [
            each for each in made.config["mounts"] if each["destination"] not in ("/dev", "/dev/mqueue", "/dev/shm")
        ]
        (made.rootfs / "dev/pts").mkdir()
    made.write()
    with ConsoleSocket(tmp_path / "console") as console:
        container = runtime.create(made, "--console-socket", console.path)
        _, fds = console.receive()
        runtime.start(container).ok()
        Reader(fds[0]).expect("up")
