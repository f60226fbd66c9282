"""The root file system that containerd describes: mounted below the bundle, and gone with the container."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocirt.errors import Error
from ocirt_api.messages.types import Mount
from tests.support.isolation import mount, mount_targets
from tests.support.taskshims import kill
from tests.system.taskshim.conftest import Containers, Held, bind, gone


def rooted(containers: Containers, mounts: list[Mount], *args: str) -> Held:
    """A container whose root is mounted for it."""
    held = containers.shim(*args, root={"path": "rootfs"})
    held.create(rootfs=mounts)
    return held


def below(held: Held) -> list[Path]:
    return [target for target in mount_targets() if target.is_relative_to(held.bundle)]


def layers(containers: Containers, count: int) -> tuple[list[str], Path]:
    """Directories on a file system that overlayfs takes: lower ones, the topmost first, and one for changes."""
    place = containers.place / "t"
    place.mkdir()
    mount("tmpfs", str(place), "tmpfs", 0)
    found = []
    for number in range(count):
        one = place / f"{number}{'x' * 40}" / "fs"
        one.mkdir(parents=True)
        (one / f"f{number}").write_text("")
        found.append(str(one))
    for name in ("u", "w"):
        (place / name).mkdir()
    return found, place


def test_a_bind(containers: Containers) -> None:
    held = rooted(containers, [bind(containers.rootfs, "ro")], "sh", "-c", "touch /x || exit 5")
    assert below(held) == [held.bundle / "rootfs"]
    assert held.run().exit_status == 5
    assert below(held) == [held.bundle / "rootfs"]
    held.remove()
    assert below(held) == []


def test_an_overlay_of_many_layers(containers: Containers) -> None:
    """More than a page of names."""
    lowers, place = layers(containers, 120)
    options = [
        f"lowerdir={':'.join([*lowers, str(containers.rootfs)])}",
        f"upperdir={place}/u",
        f"workdir={place}/w",
        "index=off",
    ]
    one = Mount(type="overlay", source="overlay", options=options)
    held = rooted(containers, [one], "sh", "-c", "test -e /f119 && echo x >/new")
    assert held.run().exit_status == 0
    assert (place / "u" / "new").read_text() == "x\n"
    held.remove()
    assert below(held) == []


def test_an_overlay_with_other_ids(containers: Containers) -> None:
    """Lower layers are shown with the ids that they are mapped to."""
    lowers, place = layers(containers, 1)
    lowers.append(str(place / "copy"))
    (place / "copy").mkdir()
    options = [
        f"lowerdir={':'.join(lowers)}",
        f"upperdir={place}/u",
        f"workdir={place}/w",
        "uidmap=0:5000:100",
        "gidmap=0:5000:100",
    ]
    held = containers.shim("true", root={"path": "rootfs"})
    try:
        held.create(rootfs=[Mount(type="overlay", source="overlay", options=options)])
    except Error as err:
        assert "not found in $PATH" in str(err)  # there is no program in it: it was mounted
    assert below(held) == []


def test_mounts_over_each_other(containers: Containers) -> None:
    mounts = [bind(containers.rootfs), Mount(type="tmpfs", source="tmpfs", target="/tmp", options=["size=64k", "nosuid"])]
    held = rooted(containers, mounts, "sh", "-c", "grep ' /tmp ' /proc/mounts | grep -q size=64k")
    assert len(below(held)) == 2
    assert held.run().exit_status == 0
    held.remove()
    assert below(held) == []


def test_what_cannot_be_mounted(containers: Containers) -> None:
    """Nothing stays, and the error names the mount."""
    held = containers.shim("true", root={"path": "rootfs"})
    good = bind(containers.rootfs)
    for bad, word in (
        (bind(Path("/no/such")), r"rootfs\[1\].*/no/such"),
        (Mount(type="ext4", source="/x", options=["loop"]), "loop"),
        (Mount(type="overlay", options=["upperdir=/x"]), "lower layers"),
        (Mount(type="overlay", options=["lowerdir=/x", "uidmap=1:2"]), "three numbers"),
        (Mount(type="nosuchfs", source="none"), "nosuchfs"),
    ):
        with pytest.raises(Error, match=word):
            held.create(rootfs=[good, bad])
        assert below(held) == []


def test_the_shim_is_killed(containers: Containers) -> None:
    held = rooted(containers, [bind(containers.rootfs)], "sleep", "1000")
    held.call("Start")
    kill(held.shim.pid)
    gone(held.shim.pid)
    assert below(held) != []
    containers.containerd.delete(held.name)
    assert below(held) == []
