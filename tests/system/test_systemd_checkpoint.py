"""`restore` where systemd makes the cgroups: what comes back is in a unit, with the name and the limits that its bundle has."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import Runtime
from tests.support.systemd import Systemd
from tests.support.systemd_units import SLICE, bundle, needs, new, own_cgroups, shared, systemd
from tests.system.conftest import MakeBundle
from tests.system.test_checkpoint import SBIN, Images, counter, counts_on, need_criu, netfilter, numbers, quiet

# Fixtures of others.
__all__ = ["bundle", "netfilter", "new", "shared", "systemd"]


@pytest.fixture
def box(new: Callable[..., Runtime], systemd: Systemd) -> Runtime:
    """The runtime under test, beside systemd, where CRIU may write the sysctls of the namespaces that it makes."""
    need_criu()
    made = new()
    if systemd.pid:
        made.prefix = [*systemd.prefix, "unshare", "--mount", "sh", "-c", 'umount /proc/sys && exec "$@"', "sh"]
    made.env = os.environ | {"PATH": f"{os.environ['PATH']}:{SBIN}"}
    return made


@pytest.fixture
def images(box: Runtime, shared: Path) -> Images:
    return Images(box, shared)


def unit_of(container: str) -> str:
    return f"test-{container}.scope"


def gone(systemd: Systemd, container: str) -> bool:
    """Neither the unit nor its cgroup is there."""
    unit = unit_of(container)
    return systemd.show(unit)["LoadState"] == ["not-found"] and not systemd.directory(f"/{SLICE}/{unit}").exists()


def dumped(images: Images, made: Bundle, *flags: str) -> str:
    """A container that counts, after its checkpoint."""
    container = quiet(images.runtime, made)
    images.dump(container, *flags)
    return container


def refused(images: Images, made: Bundle, container: str, words: str) -> None:
    """A `restore --detach` that fails."""
    images.runtime.prepare(made, container)
    args = images.argv(made, "--detach", container)
    images.runtime.detached(*args, out=images.path.parent / "out", timeout=120).failed(words)


def test_what_ran_goes_on_in_a_unit(box: Runtime, bundle: MakeBundle, systemd: Systemd, images: Images) -> None:
    made = counter(bundle)
    container = quiet(box, made)
    look = ("cat", "/proc/1/cgroup")
    where = box.exec(container, *look).ok().out
    images.dump(container)
    assert gone(systemd, container)

    images.restore(made, container=container)
    unit = unit_of(container)
    group = f"/{SLICE}/{unit}"
    shown = systemd.show(unit)
    assert (shown["ActiveState"], shown["ControlGroup"], shown["Transient"]) == (["active"], [group], ["yes"])
    assert own_cgroups(where) == own_cgroups(box.exec(container, *look).ok().out)
    assert own_cgroups(where)[""] == group
    inside = box.call("ps", "--format", "json", container).ok().json()
    assert box.pid(container) in inside
    # The shell and what it has just started, and nothing of CRIU's.
    names = box.exec(container, "sh", "-c", "cat /proc/[0-9]*/comm | sort -u").ok().out.split()
    assert set(names) <= {"busybox", "cat", "sh", "sleep", "sort"}
    counts_on(made)
    box.call("pause", container).ok()
    box.call("resume", container).ok()
    box.delete(container, "--force").ok()
    assert gone(systemd, container)


def test_limits_are_the_bundle_s(box: Runtime, bundle: MakeBundle, systemd: Systemd, images: Images) -> None:
    """Those of the container that was dumped are gone with it."""
    needs(systemd, "cpu", "pids")
    made = counter(bundle, resources={"pids": {"limit": 40}, "cpu": {"quota": 60000, "period": 100000}})
    container = dumped(images, made)
    made.config["linux"]["resources"] |= {"pids": {"limit": 30}, "cpu": {"quota": 50000, "period": 100000}}
    images.restore(made, container=container)
    shown = systemd.show(unit_of(container))
    assert (shown["TasksMax"], shown["CPUQuotaPerSecUSec"]) == (["30"], ["500ms"])
    path = "/sys/fs/cgroup/pids" if systemd.view == "hybrid" else "/sys/fs/cgroup"
    assert systemd.call("cat", f"{path}/{SLICE}/{unit_of(container)}/pids.max").stdout == "30\n"
    counts_on(made)


def test_the_end_of_an_attached_restore(box: Runtime, bundle: MakeBundle, systemd: Systemd, images: Images) -> None:
    made = bundle(args=["sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 7"])
    container = dumped(images, made)
    (made.rootfs / "tmp" / "go").touch()
    box.prepare(made, container)
    assert box.call(*images.argv(made, container), timeout=120).rc == 7
    assert gone(systemd, container)


def test_a_unit_that_is_taken(box: Runtime, bundle: MakeBundle, systemd: Systemd, images: Images) -> None:
    """By what the images were made from, in the same slice and seen from another: it is left alone."""
    made = counter(bundle, cgroupsPath=f"{SLICE}:pre:taken")
    container = dumped(images, made, "--leave-running")
    pid = box.pid(container)
    for path, words in ((f"{SLICE}:pre:taken", "container's cgroup is not empty"), ("system.slice:pre:taken", "pre-taken.scope")):
        made.config["linux"]["cgroupsPath"] = path
        other = box.new_id()
        refused(images, made, other, words)
        assert not (box.root / other).exists()
        assert (box.status(container), box.pid(container)) == ("running", pid)
        assert systemd.show("pre-taken.scope")["ActiveState"] == ["active"]
    counts_on(made)


def test_what_fails_leaves_no_unit(box: Runtime, bundle: MakeBundle, systemd: Systemd, images: Images) -> None:
    """Before CRIU is asked (a property that systemd does not know), by CRIU, and by a hook when init is there."""
    made = counter(bundle)
    container = dumped(images, made)
    kept = len(numbers(made))

    def fails(words: str, **edits: Any) -> None:
        had = made.config
        made.config = had | edits
        refused(images, made, container, words)
        made.config = had
        assert gone(systemd, container)
        assert not (box.root / container).exists()

    fails("Nonsense", annotations={"org.systemd.property.Nonsense": "5"})
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}
    fails("hook", hooks={"createRuntime": [hook]})
    (images.path / "pages-1.img").rename(images.path / "away")
    fails("criu failed: type RESTORE errno ")
    assert len(numbers(made)) == kept
    (images.path / "away").rename(images.path / "pages-1.img")
    images.restore(made, container=container)
    counts_on(made)


@pytest.mark.ocirt_only("runc leaves a mount in its state directory")
@pytest.mark.parametrize("whom", ["$PPID", "$PPID $(cat /proc/$PPID/task/$PPID/children | cut -d' ' -f1)"], ids=["alone", "both"])
def test_a_runtime_that_is_killed(
    box: Runtime,
    bundle: MakeBundle,
    systemd: Systemd,
    images: Images,
    whom: str,
) -> None:
    """Alone, or with its CRIU: `delete --force` finds the unit in the record."""
    made = counter(bundle)
    container = dumped(images, made)
    made.config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", f"kill -9 {whom}; sleep 1"]}]}
    refused(images, made, container, "")
    box.delete(container, "--force").ok()
    assert gone(systemd, container)
