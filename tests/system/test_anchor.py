"""Containers without a mount namespace: their root by chroot(2), their mounts in the runtime's tree, and nothing of it left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundle import Bundle
from tests.support.isolation import MS_BIND, MS_REC, MS_SHARED, mount, umount
from tests.support.kills import Watch, chosen, killed_at, of_process, of_runtime, trace, who
from tests.support.leaks import mounts
from tests.support.runtime import Runtime, reap_orphans, wait_for
from tests.support.terminal import ConsoleSocket, Reader, Terminal
from tests.system.conftest import MakeBundle
from tests.system.test_filesystem import mounts_in
from tests.system.test_hooks import KINDS, recorder

pytestmark = pytest.mark.ocirt_only("runc leaves the mounts, makes the host's root a slave, and `exec` runs in the host's root")

OTHERS = ["pid", "network", "ipc", "uts"]


def own() -> str:
    """The tests' mount namespace, which is the runtime's."""
    return os.readlink("/proc/self/ns/mnt")


@pytest.fixture
def made(bundle: MakeBundle) -> Bundle:
    """A bundle without a mount namespace that sleeps."""
    return bundle(args=["sleep", "1000"], namespaces=OTHERS)


@contextlib.contextmanager
def nothing_changed() -> Iterator[dict[str, str]]:
    """The host's mounts, their propagation included, are the same before and after."""
    before = mounts()
    yield before
    assert mounts() == before


def added(before: dict[str, str]) -> dict[str, str]:
    """What is mounted now and was not: kind of file system by target. What was there is as it was."""
    now = mounts()
    assert {name: now.get(name) for name in before} == before
    return {name.partition(" #")[0]: said.split()[1] for name, said in now.items() if name not in before}


@contextlib.contextmanager
def slave_of(place: Path) -> Iterator[Path]:
    """/proc/PID of a process in another mount namespace, which follows what is mounted below `place`."""
    mount(str(place), str(place), "none", MS_BIND)
    mount("none", str(place), "none", MS_SHARED)
    command = ["unshare", "--mount", "--propagation", "slave", "cat"]
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"x")
            process.stdin.flush()
            process.stdout.read(1)  # unshare has become cat
            yield Path(f"/proc/{process.pid}")
            process.stdin.close()
    finally:
        umount(str(place))


def below(process: Path, place: Path) -> list[str]:
    """What a process has mounted below a directory: the targets, one for each mount."""
    lines = (process / "mountinfo").read_text().splitlines()
    return sorted(line.split()[4] for line in lines if line.split()[4].startswith(f"{place}/"))


# What it is


def test_its_root_and_its_namespace(runtime: Runtime, made: Bundle) -> None:
    """The namespace is the runtime's, the root is the container's: by ls, by `..`, and by what is mounted."""
    seen = runtime.probe(made)
    assert seen["namespaces"]["mnt"] == own()
    assert seen["namespaces"]["pid"] != os.readlink("/proc/self/ns/pid")
    assert runtime.shell(made, "ls -d /.. /bin /host* /proc/1/root; cd ..; pwd").out.split() == [
        "/..",
        "/bin",
        "/proc/1/root",
        "/",
    ]
    found = mounts_in(runtime, made)
    with_namespace = mounts_in(runtime, made.edit(namespaces=[*OTHERS, "mount"]))
    assert {target: (each.kind, each.options, each.data) for target, each in found.items()} == {
        target: (each.kind, each.options, each.data) for target, each in with_namespace.items()
    }


def test_what_is_hidden_or_read_only(runtime: Runtime, made: Bundle) -> None:
    """As with a namespace, and for the container alone: the host's own /proc is another one."""
    made.edit(root={"readonly": True}, maskedPaths=["/proc/timer_list", "/etc"], readonlyPaths=["/proc/sys"])
    script = "wc -c < /proc/timer_list; ls /etc; for f in /proc/sys/kernel/hostname /new; do echo x > $f; done"
    done = runtime.shell(made, script)
    assert done.out == "0\n"
    assert done.err.count("Read-only file system") == 2
    assert Path("/proc/timer_list").stat().st_dev == Path("/proc").stat().st_dev


def test_no_namespace_at_all(runtime: Runtime, made: Bundle) -> None:
    """`linux` without any: everything is the runtime's, but for the root."""
    made.edit(namespaces=[], hostname=None, edit=lambda config: config["mounts"].pop())
    with nothing_changed():
        seen = runtime.probe(made, maskedPaths=[], readonlyPaths=[])
        assert seen["namespaces"] == {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in seen["namespaces"]}
        assert runtime.run(made.edit(args=["/bin/probe", "stat", "/etc/passwd"])).ok().json()["type"] == "file"


def test_no_pivot_makes_no_difference(runtime: Runtime, made: Bundle) -> None:
    """With runc the flag would move the root over the host's."""
    with nothing_changed():
        assert runtime.run(made.edit(args=["ls", "/"]), "--no-pivot").ok().out.split()[0] == "bin"


@pytest.mark.parametrize(("name", "tags"), [("rshared", "shared:"), ("private", ""), ("unbindable", "unbindable")])
def test_propagation_of_the_root(runtime: Runtime, made: Bundle, name: str, tags: str) -> None:
    """Said of the container's root, never of the host's."""
    with nothing_changed():
        root = mounts_in(runtime, made, rootfsPropagation=name)["/"]
    assert root.tags.startswith(tags)
    assert bool(root.tags) == bool(tags)


# What the host sees, during and after


@pytest.mark.parametrize("end", ["itself", "created", "killed", "forced"])
def test_its_mounts_come_and_go(runtime: Runtime, made: Bundle, end: str) -> None:
    """They lie below the root file system, on one that names the container; `delete` takes them all away, however it ends."""
    made.edit(args=["true"] if end == "itself" else ["sleep", "1000"])
    with nothing_changed() as before:
        container = runtime.create(made)
        found = added(before)
        assert all(target == str(made.rootfs) or target.startswith(f"{made.rootfs}/") for target in found)
        assert {f"{made.rootfs}/proc", f"{made.rootfs}/dev/pts", f"{made.rootfs}/sys"} <= set(found)
        source = f"ocirt:{runtime.root / container}"
        assert source in Path("/proc/self/mountinfo").read_text()
        pid = runtime.pid(container)
        if end != "created":
            runtime.start(container).ok()
        if end == "itself":
            runtime.wait(container, pid)
        elif end == "killed":
            runtime.kill(container, "KILL").ok()
            runtime.wait(container, pid)
        assert len(added(before)) == len(found), "they stay until `delete`"
        runtime.delete(container, *(["--force"] if end == "forced" else [])).ok()
    assert runtime.call("list", "-q").ok().out == ""


@pytest.mark.parametrize(
    "edits",
    [
        {"add_mounts": [{"destination": "/proc/1", "type": "tmpfs", "source": "tmpfs"}]},
        {"add_mounts": [{"destination": "/x", "type": "bind", "source": "/nowhere", "options": ["bind"]}]},
        {"add_mounts": [{"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["size=much"]}]},
        {"args": ["/not/there"]},
        {"cwd": "/etc/passwd"},
        {"hooks": {"createContainer": [{"path": "/bin/false"}]}},
    ],
    ids=["document", "source", "option", "program", "cwd", "hook"],
)
def test_a_failure_leaves_nothing(runtime: Runtime, made: Bundle, edits: dict[str, Any]) -> None:
    """Whatever had been mounted by then."""
    with nothing_changed():
        runtime.run(made.edit(**edits)).failed(rc=1)
        runtime.try_create(made).failed(rc=1)


def test_a_start_that_fails(runtime: Runtime, made: Bundle) -> None:
    """The container has stopped; its mounts wait for `delete`."""
    made.edit(hooks={"startContainer": [{"path": "/bin/false"}]})
    with nothing_changed() as before:
        container = runtime.create(made)
        runtime.start(container).failed("startContainer")
        assert runtime.status(container) == "stopped"
        assert added(before)
        runtime.delete(container).ok()


def test_what_the_host_had_mounted_stays(runtime: Runtime, made: Bundle, tmp_path: Path) -> None:
    """Shared volumes with mounts below them, and the whole host: what is unmounted in the container is not unmounted outside."""
    volume = tmp_path / "volume"
    volume.mkdir()
    mount("tmpfs", str(volume), "tmpfs", 0)
    mount("none", str(volume), "none", MS_SHARED)
    (volume / "below").mkdir()
    mount("tmpfs", str(volume / "below"), "tmpfs", 0)
    (volume / "below/file").write_text("kept\n")
    binds = [
        {"destination": "/volume", "type": "bind", "source": str(volume), "options": ["rbind", "rshared"]},
        {"destination": "/private", "type": "bind", "source": str(volume), "options": ["rbind", "rprivate"]},
        {"destination": "/host", "type": "bind", "source": "/", "options": ["rbind"]},
        {"destination": "/volume/inner", "type": "tmpfs", "source": "tmpfs"},
    ]
    try:
        with nothing_changed() as before:
            container = runtime.run_detached(made.edit(add_mounts=binds, rootfsPropagation="rshared"))
            assert runtime.exec(container, "cat", "/volume/below/file", "/private/below/file").ok().out == "kept\n" * 2
            assert added(before)
            runtime.delete(container, "--force").ok()
            assert (volume / "below/file").read_text() == "kept\n"
    finally:
        subprocess.run(["umount", "--recursive", volume], check=True)


def test_where_the_host_s_mounts_are_followed(runtime: Runtime, made: Bundle) -> None:
    """Below a shared mount they come and go in other namespaces, too, as any mount does; a hidden file hides nothing there."""
    (made.rootfs / "hidden").write_text("x")
    made.edit(maskedPaths=["/hidden", "/hidden"])
    with slave_of(made.path) as other, nothing_changed() as before:
        seen = below(other, made.path)
        container = runtime.run_detached(made)
        assert below(other, made.path) == sorted(target for target in added_points(before))
        assert f"{made.rootfs}/proc" in below(other, made.path)
        runtime.delete(container, "--force").ok()
        assert below(other, made.path) == seen


@pytest.mark.parametrize("edits", [{"rootfsPropagation": "rslave"}, {"options": ["rbind", "rprivate"]}, {"options": ["rbind"]}])
def test_nothing_stays_where_the_host_s_mounts_are_followed(
    runtime: Runtime, made: Bundle, tmp_path: Path, edits: dict[str, Any]
) -> None:
    """Also of what is not to be shared: that does not come there at all."""
    (tmp_path / "below").mkdir()
    mount("tmpfs", str(tmp_path / "below"), "tmpfs", 0)
    options = edits.pop("options", ["rbind"])
    volume = {"destination": "/volume", "type": "bind", "source": str(tmp_path), "options": options}
    try:
        with slave_of(made.path) as other, nothing_changed():
            seen = below(other, made.path)
            container = runtime.run_detached(made.edit(add_mounts=[volume], **edits))
            there = f"{made.rootfs}/volume/below" in below(other, made.path)
            assert there == (options == ["rbind"] and not edits)
            runtime.delete(container, "--force").ok()
            assert below(other, made.path) == seen
    finally:
        umount(str(tmp_path / "below"))


def added_points(before: dict[str, str]) -> list[str]:
    """The targets of what is mounted now and was not, one for each mount."""
    return [name.partition(" #")[0] for name in mounts() if name not in before]


def test_a_bundle_that_is_moved(runtime: Runtime, made: Bundle) -> None:
    """The mounts go with it, and are found."""
    container = runtime.run_detached(made)
    place = made.path.with_name("elsewhere")
    made.path.rename(place)
    try:
        assert f"{place}/rootfs/proc" in added({})
        runtime.delete(container, "--force").ok()
    finally:
        place.rename(made.path)


def test_a_mount_over_it(runtime: Runtime, made: Bundle) -> None:
    """Mounted over the root, by whomever: it goes with the rest. Over a directory above: an error says so, and is not the end."""
    container = runtime.run_detached(made)
    mount("tmpfs", str(made.rootfs), "tmpfs", 0)
    mount("tmpfs", str(made.path), "tmpfs", 0)
    (made.path / "rootfs").mkdir()
    runtime.delete(container, "--force").failed(f"{re.escape(str(made.rootfs))}: the container's mounts cannot be reached")
    mount("tmpfs", str(made.rootfs), "tmpfs", 0)
    runtime.delete(container, "--force").failed("another mount covers it")
    umount(str(made.rootfs))
    umount(str(made.path))
    assert runtime.status(container) == "stopped"
    runtime.delete(container, "--force").ok()
    assert not (runtime.root / container).exists()


def test_a_copy_of_it(runtime: Runtime, made: Bundle, tmp_path: Path) -> None:
    """Somebody's bind mount of the tree is not the container's to take away."""
    container = runtime.run_detached(made)
    mount(str(made.path), str(tmp_path), "none", MS_BIND | MS_REC)
    try:
        runtime.delete(container, "--force").ok()
        assert str(tmp_path / "rootfs/dev/pts") in added({})
    finally:
        subprocess.run(["umount", "--recursive", tmp_path], check=True)


# exec, hooks, streams


def test_exec(runtime: Runtime, made: Bundle) -> None:
    """In the container's root, with its mounts; a terminal is of its own devpts."""
    container = runtime.run_detached(made)
    pid = runtime.pid(container)
    assert runtime.exec(container, "ls", "/").ok().out.split() == sorted(os.listdir(made.rootfs))
    out = (
        runtime.exec(container, "sh", "-c", "readlink /proc/self/ns/mnt; pwd; cd ..; cd ..; pwd", flags=["--cwd", "/etc"])
        .ok()
        .out
    )
    assert out.split() == [own(), "/etc", "/"]
    assert runtime.exec(container, "readlink", "/proc/self/ns/pid").ok().out.strip() == os.readlink(f"/proc/{pid}/ns/pid")
    with Terminal(runtime.argv("exec", "--tty", container, "tty")) as terminal:
        assert terminal.wait() == 0
        assert terminal.output.startswith(b"/dev/pts/0")
    runtime.kill(container, "KILL").ok()
    runtime.wait(container, pid)
    runtime.exec(container, "true").failed("cannot exec in a stopped container", rc=255)
    runtime.delete(container).ok()


def test_hooks(runtime: Runtime, made: Bundle, tmp_path: Path) -> None:
    """All in the one mount namespace; createContainer sees the container's tree where it is, startContainer is in it."""
    log = tmp_path / "log" / "lines"
    log.parent.mkdir()
    made.edit(
        add_mounts=[{"destination": str(log.parent), "type": "bind", "source": str(log.parent), "options": ["bind"]}],
        hooks={kind: [recorder(made.rootfs, log, kind, kind == "startContainer")] for kind in KINDS},
    )
    looks = {
        kind: {"path": str(made.rootfs / "bin/busybox"), "args": ["sh", "-c", f"ls {made.rootfs}/proc >> {log}.{kind}"]}
        for kind in ("createContainer", "poststop")
    }
    for kind, hook in looks.items():
        made.config["hooks"][kind].append(hook)
    with nothing_changed():
        container = runtime.run_detached(made.edit())
        runtime.delete(container, "--force").ok()
    lines = [line.split(" ", 3) for line in log.read_text().splitlines()]
    assert [line[0] for line in lines] == list(KINDS)
    assert {line[1] for line in lines} == {own()}
    assert next(line[2] for line in lines if line[0] == "startContainer") == "/"
    assert "self" in Path(f"{log}.createContainer").read_text().split()
    assert Path(f"{log}.poststop").read_text() == ""


def test_streams(runtime: Runtime, made: Bundle, tmp_path: Path) -> None:
    """Pipes, files, /dev/null and a terminal, as with a namespace."""
    made.edit(args=["sh", "-c", "cat; echo err >&2; exit 7"])
    done = runtime.run(made, stdin="words\n")
    assert (done.rc, done.out, done.err) == (7, "words\n", "err\n")
    container = runtime.create(made.edit(args=["sh", "-c", "echo out; exec sleep 1000"]))
    runtime.start(container).ok()
    assert runtime.wait_output(container, "out") == "out\n"
    runtime.delete(container, "--force").ok()
    with nothing_changed(), ConsoleSocket(tmp_path / "console") as console:
        made.edit(terminal=True, args=["sh", "-c", "tty; echo up > /dev/console; exec sleep 1000"])
        container = runtime.create(made, "--console-socket", console.path)
        _, fds = console.receive()
        runtime.start(container).ok()
        Reader(fds[0]).expect("up")
        runtime.delete(container, "--force").ok()


def test_time_offsets(runtime: Runtime, made: Bundle) -> None:
    """With a process in between, which clones init."""
    made.edit(namespaces=[*OTHERS, "time"], linux={"timeOffsets": {"monotonic": {"secs": 864000}}})
    with nothing_changed():
        assert float(runtime.run(made.edit(args=["cat", "/proc/uptime"])).ok().out.split()[0]) > 0
        assert runtime.probe(made)["namespaces"]["mnt"] == own()


# What cannot be had


def test_the_host_s_own_root(runtime: Runtime, made: Bundle) -> None:
    """It would be covered for all, also by another name."""
    with nothing_changed():
        runtime.run(made.edit(root={"path": "/"})).failed("/root/path.*host's own root", rc=1)
        (made.path / "link").symlink_to("/")
        runtime.run(made.edit(root={"path": "link"})).failed("/root/path.*/linux/namespaces", rc=1)
        out = runtime.call("check", made.path).out
    assert "error /root/path: root file system: " in out


@pytest.mark.parametrize("path", ["rootfs", "rootfs/home", "."])
def test_roots_in_each_other(runtime: Runtime, made: Bundle, path: str) -> None:
    """What would take away one of them would take the other's mounts away."""
    container = runtime.run_detached(made)
    with nothing_changed():
        runtime.try_create(made.edit(root={"path": path})).failed(f"/root/path.*{container} has no mount namespace either", rc=1)
    assert runtime.exec(container, "ls", "/proc/self").ok()
    # One with a namespace may have it: its own copy of the tree is its own.
    other = runtime.create(made.edit(root={"path": "rootfs"}, namespaces=[*OTHERS, "mount"]))
    runtime.delete(other, "--force").ok()
    runtime.delete(container, "--force").ok()


def test_with_a_user_namespace(runtime: Runtime, made: Bundle) -> None:
    """Its root has no rights in the host's mount namespace."""
    mapping = [{"containerID": 0, "hostID": 100_000, "size": 65536}]
    made.edit(namespaces=[*OTHERS, "user"], uidMappings=mapping, gidMappings=mapping)
    runtime.run(made).failed("/linux/namespaces.*only root of the host", rc=1)


def test_the_runtime_s_own_namespace_by_path(runtime: Runtime, made: Bundle) -> None:
    """It is said to leave the entry out: pivot_root(2) would give the container's root to all processes there."""
    with nothing_changed():
        root = os.stat("/")
        made.edit(namespaces=[*OTHERS, {"type": "mount", "path": "/proc/self/ns/mnt"}])
        runtime.run(made).failed("/linux/namespaces/4/path.*own mount namespace: leave the entry out", rc=1)
        assert os.path.samestat(os.stat("/"), root)


def test_a_checkpoint(runtime: Runtime, made: Bundle, tmp_path: Path) -> None:
    """CRIU could not tell the container's mounts from the host's."""
    container = runtime.run_detached(made)
    runtime.call("checkpoint", "--image-path", tmp_path, container).failed("without a mount namespace cannot be checkpointed")
    assert runtime.status(container) == "running"
    runtime.delete(container, "--force").ok()


def test_check_warns(runtime: Runtime, made: Bundle) -> None:
    """That this is no boundary."""
    done = runtime.call("check", made.path).ok()
    assert "warning /linux/namespaces: " in done.out
    assert "CAP_SYS_CHROOT" in done.out


# Other namespaces, damaged records, kills


def in_a_namespace(*argv: str | Path) -> list[str]:
    """A command in a mount namespace of its own."""
    return ["unshare", "--mount", "--propagation", "private", *map(str, argv)]


def test_from_another_mount_namespace(runtime: Runtime, made: Bundle) -> None:
    """Who does not see the mounts is told where they are, and removes nothing."""
    container = runtime.run_detached(made)
    argv = in_a_namespace(*runtime.argv("delete", "--force", container))
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(r"another mount namespace, that of process \d+ \(delete it from there: nsenter", done.stderr)
    reap_orphans()
    assert runtime.status(container) == "stopped"
    assert f"{made.rootfs}/proc" in added({})
    runtime.delete(container, "--force").ok()


def test_a_mount_namespace_that_has_ended(runtime: Runtime, made: Bundle) -> None:
    """With it all its mounts are gone."""
    container = runtime.new_id()
    runtime.prepare(made.edit(args=["true"]), container)
    argv = in_a_namespace(*runtime.argv("run", "--detach", "--bundle", made.path, container))
    with nothing_changed():
        subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        wait_for(lambda: runtime.status(container) == "stopped", "its end")
        reap_orphans()
        runtime.delete(container).ok()


@pytest.mark.parametrize("damage", ["anchor", "all", "gone"])
def test_a_damaged_record(runtime: Runtime, made: Bundle, damage: str) -> None:
    """`delete --force` finds the mounts by the name of the directory."""
    with nothing_changed():
        container = runtime.run_detached(made)
        pid = runtime.pid(container)
        runtime.kill(container, "KILL").ok()
        runtime.wait(container, pid)
        file = runtime.root / container / "state.json"
        if damage == "anchor":
            file.write_text(json.dumps(json.loads(file.read_text()) | {"anchor": {"path": 7}}))
        elif damage == "all":
            file.write_text('{"version": 1, "anch')
        else:
            file.unlink()
        runtime.delete(container, "--force").ok()
        assert not file.parent.exists()
    # Nobody else is left to remove the cgroups of a record that is gone.
    for path in Path("/sys/fs/cgroup").glob(f"**/{container}"):
        path.rmdir()


@pytest.fixture
def rich(made: Bundle) -> Bundle:
    """With something of all that is mounted."""
    volumes = [
        {"destination": "/data", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
        {"destination": "/home", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "tmpcopyup"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
    ]
    return made.edit(args=["/bin/true"], add_mounts=volumes, root={"readonly": True}, cwd="/made")


@pytest.mark.parametrize("victim", ["create", "run", "init"])
def test_it_is_killed(runtime: Runtime, rich: Bundle, watch: Watch, tmp_path: Path, victim: str) -> None:
    """At every step: `delete --force` leaves no mount, or `run` itself where init is killed."""
    verb = "create" if victim == "create" else "run"
    container = runtime.new_id()
    runtime.prepare(rich, container)
    calls = trace(runtime.argv("run", "--bundle", rich.path, container), tmp_path / "log")
    points = of_runtime(calls, f'root/{container}"') if victim != "init" else of_process(calls, who(calls, r"^\d+ +chroot"))
    for point in chosen(points, 60):
        container = runtime.new_id()
        runtime.prepare(rich, container)
        death = killed_at(runtime.argv(verb, "--bundle", rich.path, container), point, children=victim == "init")
        if victim == "init":
            watch.count(death, 1)
        else:
            watch.count(death)
            watch.delete(point, container)
        watch.nothing_left(point, container)


def test_delete_is_killed(runtime: Runtime, rich: Bundle, watch: Watch, tmp_path: Path) -> None:
    """At every step, between the mounts as well: the next one does the rest."""
    container = runtime.create(rich)
    points = of_runtime(trace(runtime.argv("delete", "--force", container), tmp_path / "log"), f"{container}/")
    assert "umount2#2" in map(str, points)
    reap_orphans()
    for point in chosen(points):
        container = runtime.create(rich)
        watch.count(killed_at(runtime.argv("delete", "--force", container), point))
        watch.delete(point, container)
        watch.nothing_left(point, container)
