"""A root that is an overlay of the container's own, and never in the host's tree."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.build import ROOT
from tests.support.bundle import Bundle
from tests.support.disks import load_modules, mount_mappable
from tests.support.isolation import umount
from tests.support.kills import Watch, chosen, killed_at, of_process, of_runtime, trace, who
from tests.support.runtime import Runtime, reap_orphans
from tests.system.conftest import MakeBundle
from tests.system.test_filesystem import mounts_in
from tests.system.test_idmap import lines
from tests.system.test_namespaces import MAPPING

pytestmark = pytest.mark.ocirt_only("the library's own")

DRIVER = ROOT / "tests" / "support" / "library_command.py"


class Layers:
    """Directories for an overlay: `top` above the bundle's root file system, `upper` and `work`; and the file that says so."""

    def __init__(self, place: Path, rootfs: Path) -> None:
        self.place = place
        self.apart = False
        self.top, self.upper, self.work = (place / name for name in ("top", "writable/upper", "writable/work"))
        for directory in (self.top, self.upper, self.work):
            directory.mkdir(parents=True)
        (self.top / "top").write_text("from the top\n")
        self.given: dict[str, Any] = {
            "lowers": [str(self.top), str(rootfs)],
            "upper": str(self.upper),
            "work": str(self.work),
        }

    def write(self, **changes: Any) -> Layers:
        """Write the file with these changes."""
        self.apart = changes.pop("apart", self.apart)
        self.given |= changes
        (self.place / "overlay.json").write_text(json.dumps({"overlay": self.given, "apart": self.apart}))
        return self

    def whiteout(self, path: str) -> None:
        """Hide what the layer below has at `path`."""
        (self.top / path).parent.mkdir(parents=True, exist_ok=True)
        os.mknod(self.top / path, stat.S_IFCHR | 0o600, os.makedev(0, 0))


@pytest.fixture
def layers(runtime: Runtime, place: Path, bundle: MakeBundle) -> Layers:
    """Layers above the root file system of a bundle; the runtime makes all of its containers with them."""
    found = Layers(place, bundle().rootfs)
    runtime.command = [sys.executable, "-I", str(DRIVER), str(place / "overlay.json")]
    return found.write()


@pytest.fixture
def made(layers: Layers, bundle: MakeBundle) -> Bundle:
    """A bundle that has no root file system of its own."""
    del layers
    found = bundle()
    found.rootfs.rename(found.path / "not-here")
    return found


@pytest.fixture(params=["by name", "apart"])
def way(request: pytest.FixtureRequest, layers: Layers) -> str:
    """With one call a layer, and as older kernels have it."""
    layers.write(apart=request.param == "apart")
    return str(request.param)


def test_it_is_the_root(runtime: Runtime, made: Bundle, layers: Layers, way: str) -> None:
    """Its files are those of all layers, what is written goes to the upper one, and the host's paths are not shown."""
    del way
    script = "cat /top /etc/hostname && echo new > /new && rm /etc/hostname && echo changed > /etc/passwd && ls /.."
    said = runtime.shell(made, script).ok().out
    assert said.startswith("from the top\n")
    assert (layers.upper / "new").read_text() == "new\n"
    assert (layers.upper / "etc/passwd").read_text() == "changed\n"
    assert stat.S_ISCHR((layers.upper / "etc/hostname").stat().st_mode)
    assert not (layers.top / "new").exists()


def test_what_the_container_sees_of_it(runtime: Runtime, made: Bundle, layers: Layers, way: str) -> None:
    """One overlay at `/`, and of its layers not where the host has them."""
    del way
    found = mounts_in(runtime, made)
    assert (found["/"].kind, found["/"].source) == ("overlay", "overlay")
    assert str(layers.place) not in str(found["/"])
    assert not any("metacopy=on" in word or "index=on" in word for word in found["/"].data)


def test_whiteouts(runtime: Runtime, made: Bundle, layers: Layers, way: str) -> None:
    """What a layer takes away is not there."""
    del way
    layers.whiteout("etc/passwd")
    assert "gone" in runtime.shell(made, "test -e /etc/passwd || echo gone").ok().out


@pytest.mark.parametrize("how", ["config", "request"])
def test_read_only(runtime: Runtime, made: Bundle, layers: Layers, way: str, how: str) -> None:
    """Whoever says so; the targets of mounts are made all the same."""
    del way
    if how == "config":
        made.edit(root={"readonly": True})
    else:
        layers.write(read_only=True)
    made.edit(add_mounts=[{"destination": "/made/for/it", "type": "tmpfs", "source": "tmpfs"}])
    runtime.shell(made, "touch /made/for/it/x && touch /x").failed("Read-only file system")


@pytest.mark.parametrize("count", [1, 2])
def test_without_an_upper_directory(runtime: Runtime, made: Bundle, layers: Layers, way: str, count: int) -> None:
    """It cannot change; one layer alone is enough, and whiteouts are not shown."""
    del way
    layers.write(upper="", work="", lowers=layers.given["lowers"][-count:])
    if count == 1:
        os.mknod(Path(layers.given["lowers"][0]) / "hidden", stat.S_IFCHR, os.makedev(0, 0))
    made.edit(cwd="/", add_mounts=[])
    runtime.shell(made, "touch /x").failed("Read-only file system")
    assert "hidden" not in runtime.shell(made, "ls /").ok().out


def test_no_layer_below(runtime: Runtime, made: Bundle, layers: Layers, way: str) -> None:
    """An image may be empty: then all is in the upper directory."""
    del way
    busybox = Path(layers.given["lowers"][1]) / "bin/busybox"
    (layers.upper / "bin").mkdir()
    os.link(busybox, layers.upper / "bin/busybox")
    layers.write(lowers=[])
    assert runtime.run(made.edit(args=["/bin/busybox", "echo", "here"])).ok().out == "here\n"


def test_many_layers(runtime: Runtime, made: Bundle, layers: Layers, way: str) -> None:
    """Two hundred, at paths that do not fit together into a page."""
    del way
    places = []
    for number in range(200):
        directory = layers.place / f"{'a-long-name-' * 15}{number}"
        directory.mkdir()
        (directory / f"file{number}").write_text(str(number))
        (directory / "which").write_text(str(number))
        places.append(str(directory))
    layers.write(lowers=[*places, layers.given["lowers"][1]])
    said = runtime.shell(made, "cat /which; echo; ls / | grep -c file").ok().out
    assert said == "0\n200\n"


def test_names_that_overlayfs_takes_for_something_else(runtime: Runtime, made: Bundle, layers: Layers, way: str) -> None:
    """Colons, commas and backslashes."""
    del way
    odd = layers.place / r"a:b,c\d"
    for name in ("upper", "work", "lower"):
        (odd / name).mkdir(parents=True)
    (odd / "lower/odd").write_text("odd\n")
    layers.write(lowers=[str(odd / "lower"), layers.given["lowers"][1]], upper=str(odd / "upper"), work=str(odd / "work"))
    assert runtime.shell(made, "cat /odd; echo x > /new").ok().out == "odd\n"
    assert (odd / "upper/new").exists()


def test_volatile(runtime: Runtime, made: Bundle, layers: Layers, way: str) -> None:
    """Nothing is synced; the same directories a second time are refused with a hint."""
    del way
    layers.write(volatile=True)
    assert mounts_in(runtime, made)["/"].data & {"volatile", "fsync=volatile"}
    runtime.run(made).failed("work/incompat/volatile", rc=1)


def test_volatile_after_a_failure(runtime: Runtime, made: Bundle, layers: Layers) -> None:
    """A container that was not made leaves nothing, so another attempt may have its directories; one that ran keeps them."""
    layers.write(volatile=True)
    runtime.run(made.edit(args=["/nope"])).failed("nope")
    runtime.run(made.edit(args=["/bin/true"])).ok()
    runtime.run(made).failed("work/incompat/volatile")
    runtime.run(made).failed("work/incompat/volatile")


def test_nothing_is_in_the_host_s_tree(runtime: Runtime, made: Bundle, layers: Layers, way: str) -> None:
    """While it runs neither, and what the container mounts stays there; `delete` leaves nothing but what was written."""
    del way
    before = Path("/proc/self/mountinfo").read_text()
    container = runtime.run_detached(made.edit(args=["sh", "-c", "echo up; exec sleep 1000"]))
    runtime.wait_output(container, "up")
    assert Path("/proc/self/mountinfo").read_text() == before
    assert runtime.status(container) == "running"
    assert runtime.exec(container, "/bin/sh", "-c", "cat /top; echo more > /more").ok().out == "from the top\n"
    assert (layers.upper / "more").exists()
    assert container in runtime.call("list", "-q").ok().out
    runtime.delete(container, "--force").ok()
    assert Path("/proc/self/mountinfo").read_text() == before
    assert not (runtime.root / container).exists()
    runtime.run(made.edit(args=["/bin/true"])).ok()  # the directories are free again


@pytest.fixture
def mappable(runtime: Runtime, place: Path, tmp_path: Path) -> Iterator[Callable[[Path], Layers]]:
    """Layers on a file system whose ids can be mapped, with a copy of a root file system that is root's."""
    load_modules()
    disk = place / "disk"
    disk.mkdir()
    mount_mappable(disk, tmp_path)
    try:

        def make(rootfs: Path) -> Layers:
            subprocess.run(["cp", "-a", rootfs, disk / "rootfs"], check=True)
            found = Layers(disk, disk / "rootfs")
            runtime.command = [sys.executable, "-I", str(DRIVER), str(disk / "overlay.json")]
            return found.write(uids=MAPPING, gids=MAPPING)

        yield make
    finally:
        umount(str(disk))


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("joined", [False, True])
def test_a_user_namespace(
    runtime: Runtime, bundle: MakeBundle, mappable: Callable[[Path], Layers], apart: bool, joined: bool
) -> None:
    """Layers are root's on the disk and in the container, new files too; bundle and state are closed to its root."""
    made = bundle()
    layers = mappable(made.rootfs).write(apart=apart)
    made.rootfs.rename(made.path / "not-here")
    made.path.chmod(0o700)
    kinds: list[Any] = ["mount", "pid", "ipc", "uts", "network", "user"]
    capabilities = {name: ["CAP_CHOWN"] for name in ("bounding", "effective", "permitted")}
    made.edit(namespaces=kinds, uidMappings=MAPPING, gidMappings=MAPPING, capabilities=capabilities)
    holder = None
    if joined:
        holder = runtime.run_detached(made.edit(args=["sleep", "1000"]))
        path = f"/proc/{runtime.pid(holder)}/ns/user"
        made.edit(namespaces=[*kinds[:-1], {"type": "user", "path": path}], uidMappings=None, gidMappings=None)
        for name in ("upper", "work"):
            (layers.place / "second" / name).mkdir(parents=True)
        layers.write(upper=str(layers.place / "second/upper"), work=str(layers.place / "second/work"))
    script = "stat -c '%u:%g' /etc/passwd /top && echo x > /new && chown 7:8 /new && cat /proc/self/uid_map"
    said = runtime.shell(made, script).ok().out.split("\n")
    assert said[:2] == ["0:0", "0:0"]
    assert said[2].split()[1] == str(MAPPING[0]["hostID"])
    written = Path(layers.given["upper"]) / "new"
    assert (written.stat().st_uid, written.stat().st_gid) == (7, 8)
    if holder:
        runtime.delete(holder, "--force").ok()


def test_ids_that_are_not_mapped_are_nobody_s(runtime: Runtime, bundle: MakeBundle, mappable: Callable[[Path], Layers]) -> None:
    """Mappings are what was asked for, not what the container has."""
    made = bundle()
    mappable(made.rootfs).write(uids=lines((0, 7, 10)), gids=lines((0, 9, 10)))
    assert runtime.shell(made, "stat -c '%u:%g' /etc/passwd").ok().out == "7:9\n"


def test_bind_sources_are_the_host_s(runtime: Runtime, made: Bundle, layers: Layers, place: Path) -> None:
    """The overlay covers the host's root: a source that goes up from there, as a symlink may, would be one of the image."""
    for base, text in ((place, "the host's\n"), (layers.top / place.relative_to("/"), "the image's\n")):
        (base / "source").mkdir(parents=True)
        (base / "source/file").write_text(text)
    link = place / "link"
    link.symlink_to("../" * 30 + str(place.relative_to("/")) + "/source")
    mounts = [
        {"destination": "/a", "type": "bind", "source": "/.." + str(place / "source"), "options": ["bind"]},
        {"destination": "/b", "type": "bind", "source": str(link), "options": ["rbind", "ro"]},
    ]
    assert runtime.shell(made.edit(add_mounts=mounts), "cat /a/file /b/file").ok().out == "the host's\nthe host's\n"


def test_hooks_find_it_at_its_path(runtime: Runtime, made: Bundle, layers: Layers, place: Path) -> None:
    """Those that look at the container's tree from outside do so by what config.json says."""
    (made.path / "rootfs").mkdir()
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat {made.rootfs}/top > {place}/said"]}
    runtime.shell(made.edit(hooks={"createContainer": [hook]}), "cat /top").ok()
    assert (place / "said").read_text() == "from the top\n"
    made.rootfs.rmdir()
    runtime.run(made).failed("rootfs: no such file or directory")
    assert not (layers.upper / "said").exists()


@pytest.mark.parametrize("propagation", ["private", "rshared", "rslave", "unbindable"])
@pytest.mark.parametrize("pivot", [True, False])
def test_propagation(runtime: Runtime, made: Bundle, propagation: str, pivot: bool) -> None:
    """The root has what is asked for, and nothing comes out."""
    if not pivot and propagation == "private":
        pytest.skip("refused: a private root needs pivot_root")
    before = Path("/proc/self/mountinfo").read_text()
    flags = [] if pivot else ["--no-pivot"]
    made.edit(rootfsPropagation=propagation, args=["cat", "/proc/self/mountinfo"])
    line = next(line for line in runtime.run(made, *flags).ok().out.splitlines() if line.split()[4] == "/")
    assert ("shared:" in line) == (propagation == "rshared")
    assert ("unbindable" in line) == (propagation == "unbindable")
    assert Path("/proc/self/mountinfo").read_text() == before


def test_wrong_layers(runtime: Runtime, made: Bundle, layers: Layers) -> None:
    """The error names the directory, and nothing is left."""
    for key, value in (("lowers", ["/nowhere/at/all"]), ("upper", "/nowhere/upper"), ("work", "/nowhere/work")):
        kept = layers.given[key]
        layers.write(**{key: value})
        assert "/nowhere/" in runtime.run(made).failed("no such file or directory", rc=1).err
        layers.write(**{key: kept})
    layers.write(work="")
    runtime.run(made).failed("both an upper and a work directory", rc=1)


def test_the_plan(runtime: Runtime, made: Bundle) -> None:
    """`ocirt plan` shows what is done."""
    said = runtime.call("plan", "--bundle", made.path, "x").ok().out
    assert "overlay.new(" in said
    assert "EINVAL: overlay.new_apart(" in said


@pytest.mark.parametrize("apart", [False, True])
def test_create_is_killed(runtime: Runtime, made: Bundle, layers: Layers, watch: Watch, tmp_path: Path, apart: bool) -> None:
    """At every step: `delete --force` leaves nothing, and the directories can be mounted again."""
    layers.write(apart=apart)
    watch.share = 0.6  # the points are those of `run`, which goes on where `create` ends
    made.edit(args=["/bin/true"])
    container = runtime.new_id()
    runtime.prepare(made, container)
    calls = trace(runtime.argv("run", "--bundle", made.path, container), tmp_path / "log")
    for point in chosen(of_runtime(calls, f'root/{container}"'), 60):
        container = runtime.new_id()
        runtime.prepare(made, container)
        watch.count(killed_at(runtime.argv("create", "--bundle", made.path, container), point))
        watch.delete(point, container)
        watch.nothing_left(point, container)
    reap_orphans()
    runtime.run(made).ok()


def test_init_is_killed(runtime: Runtime, made: Bundle, watch: Watch, tmp_path: Path) -> None:
    """At every step of its own."""
    made.edit(args=["/bin/true"])
    container = runtime.new_id()
    runtime.prepare(made, container)
    calls = trace(runtime.argv("run", "--bundle", made.path, container), tmp_path / "log")
    for point in chosen(of_process(calls, who(calls, r"^\d+ +pivot_root")), 60):
        container = runtime.new_id()
        runtime.prepare(made, container)
        watch.count(killed_at(runtime.argv("run", "--bundle", made.path, container), point, children=True), 1)
        watch.nothing_left(point, container)
