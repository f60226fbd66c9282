"""Id-mapped mounts: whose files they are, as seen from inside and from the host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.disks import load_modules, mount_mappable
from tests.support.isolation import MS_SHARED, mount, umount
from tests.support.runtime import Runtime
from tests.system.conftest import MakeBundle
from tests.system.test_filesystem import mounts_in, stat_in
from tests.system.test_namespaces import with_user_namespace

NOBODY = 65534


@pytest.fixture(scope="module", autouse=True)
def modules() -> None:
    """What `mount_mappable` needs."""
    load_modules()


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A shared mount of the host with files of many, and a second file system below it."""
    path = tmp_path / "tree"
    path.mkdir()
    mount_mappable(path, tmp_path)
    try:
        mount("none", str(path), "none", MS_SHARED)
        (path / "below").mkdir()
        mount_mappable(path / "below", tmp_path)
        for place in (path, path / "below"):
            for name, owner in (("root", (0, 0)), ("one", (100, 211)), ("two", (101, 212))):
                (place / name).write_text(name)
                os.chown(place / name, *owner)
        yield path
    finally:
        umount(str(path / "below"))
        umount(str(path))


def lines(*ids: tuple[int, int, int]) -> list[dict[str, int]]:
    """Mappings from (inside, outside, how many)."""
    return [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in ids]


def mapped(tree: Path, *options: str, **maps: Any) -> dict[str, Any]:
    """A bind mount of `tree` at /m."""
    return {"destination": "/m", "type": "bind", "source": str(tree), "options": list(options), **maps}


OWN = {"uidMappings": lines((100, 101_000, 2)), "gidMappings": lines((211, 102_000, 1), (212, 103_000, 1))}


def owners(runtime: Runtime, made: Any, *paths: str) -> list[tuple[int, int]]:
    """(uid, gid) of each path, as the container sees it."""
    if runtime.is_ocirt and "cannot map the ids" in runtime.run(made).err:
        pytest.skip("this kernel cannot map the ids of what the test mounts")
    seen = stat_in(runtime, made, *paths)
    return [(seen[path]["uid"], seen[path]["gid"]) for path in paths]


@pytest.mark.parametrize("user_namespace", [False, True])
@pytest.mark.parametrize("options", [("rbind",), ("rbind", "idmap"), ("rbind", "ridmap"), ("bind", "ridmap")], ids="-".join)
def test_mappings_of_its_own(
    runtime: Runtime, bundle: MakeBundle, tree: Path, user_namespace: bool, options: tuple[str, ...]
) -> None:
    """The mount's own ids count in the host's user namespace, with `ridmap` also for what is mounted below."""
    if user_namespace and options[0] == "bind" and not runtime.is_ocirt:
        pytest.skip("runc clones the source inside, where a mount cannot be had without those below it (EINVAL)")
    made = bundle(add_mounts=[mapped(tree, *options, **OWN)])
    if user_namespace:
        with_user_namespace(made)
    base = 100_000 if user_namespace else 0
    here = [(NOBODY, NOBODY), (101_000 - base, 102_000 - base), (101_001 - base, 103_000 - base)]
    files = ("root", "one", "two")
    assert owners(runtime, made, *(f"/m/{name}" for name in files)) == here
    if options[0] == "bind":
        return
    plain = [(0, 0), (100, 211), (101, 212)] if not user_namespace else [(NOBODY, NOBODY)] * 3
    assert owners(runtime, made, *(f"/m/below/{name}" for name in files)) == (here if "ridmap" in options else plain)


@pytest.mark.parametrize("option", ["idmap", "ridmap"])
@pytest.mark.parametrize("joined", [False, True])
def test_mappings_of_the_container(runtime: Runtime, bundle: MakeBundle, tree: Path, option: str, joined: bool) -> None:
    """Without its own a mount gets the container's, also those of a user namespace that is joined; both ways."""
    made = with_user_namespace(bundle(add_mounts=[mapped(tree, "rbind", option)]))
    holder = None
    if joined:
        first = with_user_namespace(bundle(args=["sleep", "1000"]))
        holder = runtime.run_detached(first)
        path = f"/proc/{runtime.pid(holder)}/ns/user"
        kinds = ["pid", "mount", "ipc", "uts", "network", {"type": "user", "path": path}]
        made.edit(namespaces=kinds, uidMappings=None, gidMappings=None)
    below = (0, 0) if option == "ridmap" else (NOBODY, NOBODY)
    assert owners(runtime, made, "/m/one", "/m/root", "/m/below/root") == [(100, 211), (0, 0), below]
    runtime.shell(made, "echo new > /m/new").ok()
    assert (tree / "new").stat().st_uid == 0
    if holder:
        runtime.delete(holder, "--force").ok()


def test_several(runtime: Runtime, bundle: MakeBundle, tree: Path) -> None:
    """Each mount of one directory has its own mapping, and a plain one beside them none."""
    mounts = [mapped(tree, "bind", **OWN) | {"destination": "/a"}]
    other = {"uidMappings": lines((0, 7, 200)), "gidMappings": lines((0, 8, 300))}
    mounts += [mapped(tree, "bind", **other) | {"destination": "/b"}, mapped(tree, "bind") | {"destination": "/c"}]
    made = bundle(add_mounts=mounts)
    assert owners(runtime, made, "/a/one", "/b/one", "/c/one") == [(101_000, 102_000), (107, 219), (100, 211)]


def test_who_is_not_mapped_cannot_write(runtime: Runtime, bundle: MakeBundle, tree: Path) -> None:
    """A file of the container's root could have no owner on this mount."""
    made = bundle(add_mounts=[mapped(tree, "bind", **OWN)])
    assert owners(runtime, made, "/m/root") == [(NOBODY, NOBODY)]
    runtime.shell(made, "echo new > /m/new").failed("Value too large")
    assert not (tree / "new").exists()


def test_other_options_beside_it(runtime: Runtime, bundle: MakeBundle, tree: Path) -> None:
    """Attributes and propagation are set as for any bind mount."""
    made = bundle(add_mounts=[mapped(tree, "rbind", "idmap", "ro", "nosuid", "private", **OWN)])
    assert owners(runtime, made, "/m/one") == [(101_000, 102_000)]
    found = mounts_in(runtime, made)["/m"]
    assert {"ro", "nosuid"} <= found.options
    assert "master" not in found.tags
    assert "shared" not in found.tags


@pytest.mark.parametrize("user_namespace", [False, True])
def test_the_mount_is_no_peer_of_the_host_s(runtime: Runtime, bundle: MakeBundle, tree: Path, user_namespace: bool) -> None:
    """It gets what the host mounts later, and gives nothing back."""
    made = bundle(add_mounts=[mapped(tree, "rbind", "ridmap", **OWN), mapped(tree, "rbind") | {"destination": "/plain"}])
    if user_namespace:
        with_user_namespace(made)
    assert owners(runtime, made, "/m/one") != []
    found = mounts_in(runtime, made)
    for target in ("/m", "/m/below", "/plain"):
        assert "shared:" not in found[target].tags, target
    assert "master:" in found["/m"].tags
    assert "master:" in found["/plain"].tags


def test_a_file_system_that_cannot_be_mapped(runtime: Runtime, bundle: MakeBundle) -> None:
    """It is refused by name, and leaves nothing."""
    made = bundle(add_mounts=[mapped(Path("/proc/sys/kernel"), "bind", **OWN)])
    result = runtime.run(made).failed("invalid argument", rc=1)
    if runtime.is_ocirt:
        assert "/mounts/6/uidMappings: map the ids of: /proc/sys/kernel: mount_setattr" in result.err
        assert "cannot map the ids of the source's file system" in result.err


def test_one_of_two(runtime: Runtime, bundle: MakeBundle, tree: Path) -> None:
    """Uids without gids are an error."""
    made = bundle(add_mounts=[mapped(tree, "bind", uidMappings=OWN["uidMappings"])])
    result = runtime.run(made).failed(rc=1)
    assert ("gidMappings" if runtime.is_ocirt else "both uid and gid mappings") in result.err


@pytest.mark.parametrize("options", [["rbind"], ["rbind", "shared"]], ids="-".join)
def test_what_a_user_namespace_mounts_stays_inside(runtime: Runtime, bundle: MakeBundle, tree: Path, options: list[str]) -> None:
    """Its root may mount; where the source is shared on the host, nothing of that comes out."""
    capabilities = {name: ["CAP_SYS_ADMIN"] for name in ("bounding", "effective", "permitted")}
    made = with_user_namespace(bundle(add_mounts=[mapped(tree, *options)], capabilities=capabilities))
    before = Path("/proc/self/mountinfo").read_text()
    said = runtime.shell(
        made, "mount -t tmpfs inside /m && grep inside /proc/self/mountinfo; cut -d' ' -f5- /proc/self/mountinfo"
    )
    assert "inside" in said.ok().out
    assert Path("/proc/self/mountinfo").read_text() == before
    container = runtime.run_detached(made.edit(args=["sh", "-c", "mount -t tmpfs inside /m && echo up && sleep 1000"]))
    runtime.wait_output(container, "up")
    assert "inside" not in Path("/proc/self/mountinfo").read_text()
    runtime.delete(container, "--force").ok()
