"""Limits of controllers that few hosts have: huge pages, RDMA, classes and priorities of network packets."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.isolation import MS_BIND, MS_REC, Isolation, cgroup_mounts, mount, umount
from tests.support.runtime import Runtime, reap_orphans
from tests.system.conftest import MakeBundle
from tests.system.test_cgroups import SLEEP, available, file_of

ROOT = "/sys/fs/cgroup"
MS_MOVE = 0x2000


def number_of_cgroups(controller: str) -> int:
    """From /proc/cgroups; 0 if the kernel does not have the controller."""
    lines = [line.split() for line in Path("/proc/cgroups").read_text().splitlines()]
    return next((int(line[2]) for line in lines if line[0] == controller), 0)


def usable(controller: str) -> bool:
    """Whether limits can be set with it: on a host with version 1, version 2 is not used for that."""
    return available(controller) and (
        Path(ROOT, "cgroup.controllers").exists() or any(controller in root.name.split(",") for root in cgroup_mounts())
    )


@pytest.fixture
def network_controllers(no_leaks: list[Path], isolation: Isolation, tmp_path: Path) -> Iterator[None]:
    """A view of the version 1 hierarchies with one of net_cls and net_prio, which hosts leave out."""
    del no_leaks
    if Path(ROOT, "cgroup.controllers").exists():
        pytest.skip("version 2 has no net_cls and net_prio")
    if available("net_cls"):
        yield
        return
    if not number_of_cgroups("net_cls") or not number_of_cgroups("net_prio"):
        pytest.skip("this kernel has no net_cls and net_prio")
    view = tmp_path / "view"
    view.mkdir()
    mount("tmpfs", str(view), "tmpfs", 0)
    for name in os.listdir(ROOT):
        (view / name).mkdir()
        mount(f"{ROOT}/{name}", str(view / name), "none", MS_BIND | MS_REC)
    place = view / "net_cls,net_prio"
    place.mkdir()
    try:
        mount("cgroup", str(place), "cgroup", 0, "net_cls,net_prio")
    except OSError as error:
        umount(str(view))
        pytest.skip(f"somebody else has them, one by one: {error}")
    mount(str(view), ROOT, "none", MS_MOVE)
    try:
        yield
    finally:
        for parent in Path(ROOT, place.name).glob(f"{isolation.cgroup_parent[1:]}*"):
            parent.rmdir()
        # A hierarchy that is let go while a cgroup is on its way out would stay; a zombie is still in its own.
        deadline = time.monotonic() + 3
        while number_of_cgroups("net_cls") > 1 and time.monotonic() < deadline:
            reap_orphans()
            time.sleep(0.02)
        umount(f"{ROOT}/{place.name}", 0)
        umount(ROOT)


@pytest.mark.usefixtures("network_controllers")
def test_class_and_priorities_of_packets(runtime: Runtime, bundle: MakeBundle) -> None:
    """Written to net_cls and net_prio of version 1, where the container's process is."""
    network = {"classID": 0x100001, "priorities": [{"name": "lo", "priority": 500}]}
    container = runtime.run_detached(bundle(args=SLEEP, resources={"network": network}))
    group = runtime.group(container)
    path = next(root for root in cgroup_mounts() if "net_cls" in root.name.split(",")) / group[1:]
    assert (path / "net_cls.classid").read_text() == f"{0x100001}\n"
    assert "lo 500\n" in (path / "net_prio.ifpriomap").read_text()
    assert (path / "cgroup.procs").read_text().split() == [str(runtime.pid(container))]
    runtime.delete(container, "--force").ok()
    assert not path.exists()


@pytest.mark.usefixtures("network_controllers")
def test_a_link_that_is_not_there(runtime: Runtime, bundle: MakeBundle) -> None:
    """Priorities are of links in the runtime's network namespace."""
    network = {"priorities": [{"name": "nosuch0", "priority": 1}]}
    result = runtime.run(bundle(resources={"network": network})).failed("no such device|No such device", rc=1)
    if runtime.is_ocirt:
        assert "/linux/resources/network/priorities/0" in result.err


@pytest.mark.parametrize(
    ("controller", "resources"),
    [
        ("net_cls", {"network": {"classID": 1}}),
        ("net_prio", {"network": {"priorities": [{"name": "lo", "priority": 1}]}}),
        ("rdma", {"rdma": {"mlx5_0": {"hcaHandles": 1}}}),
        ("hugetlb", {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}),
    ],
)
def test_a_controller_that_the_host_lacks(
    runtime: Runtime, bundle: MakeBundle, controller: str, resources: dict[str, object]
) -> None:
    """It is named; of network packets version 2 has no settings, and they are left aside as runc does."""
    if usable(controller):
        pytest.skip(f"this host has {controller}")
    version_2 = Path(ROOT, "cgroup.controllers").exists()
    result = runtime.run(bundle(resources=resources))
    if version_2 and controller.startswith("net_"):
        result.ok()
    elif version_2:
        result.failed(f"controller .*{controller}.* not available" if runtime.is_ocirt else controller, rc=1)
    else:
        result.failed(f"cannot set {controller} limit: container could not join or create cgroup", rc=1)


def test_huge_pages(runtime: Runtime, bundle: MakeBundle) -> None:
    """Limits of use and of reservations; the kernel rounds down to whole pages."""
    if not usable("hugetlb"):
        pytest.skip("no hugetlb controller in this view")
    pages = [{"pageSize": "2MB", "limit": (4 << 20) + 1}, {"pageSize": "1GB", "limit": 1 << 30}]
    pages = [each for each in pages if Path(f"/sys/kernel/mm/hugepages/hugepages-{_kilobytes(each)}kB").exists()]
    container = runtime.run_detached(bundle(args=SLEEP, resources={"hugepageLimits": pages}))
    group = runtime.group(container)
    for size, limit in (("2MB", 4 << 20), ("1GB", 1 << 30))[: len(pages)]:
        for kind in ("", ".rsvd"):
            path = file_of("hugetlb", group, f"hugetlb.{size}{kind}.limit_in_bytes", f"hugetlb.{size}{kind}.max")
            assert path.read_text() == f"{limit}\n", path
    made = bundle(resources={"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]})
    result = runtime.run(made).failed("no such file or directory|No such file", rc=1)
    if runtime.is_ocirt:
        assert "/linux/resources/hugepageLimits/0" in result.err


def _kilobytes(page: dict[str, object]) -> int:
    return {"2MB": 1 << 11, "1GB": 1 << 20}[str(page["pageSize"])]


def test_rdma(runtime: Runtime, bundle: MakeBundle) -> None:
    """Handles and objects of a device."""
    if not usable("rdma"):
        pytest.skip("no rdma controller in this view")
    devices = sorted(os.listdir("/sys/class/infiniband")) if Path("/sys/class/infiniband").exists() else []
    if not devices:
        result = runtime.run(bundle(resources={"rdma": {"nosuch0": {"hcaHandles": 1}}})).failed(rc=1)
        if runtime.is_ocirt:
            assert "/linux/resources/rdma/nosuch0" in result.err
        pytest.skip("no RDMA device here; one that is missing was refused")
    resources = {"rdma": {devices[0]: {"hcaHandles": 3, "hcaObjects": 100}}}
    container = runtime.run_detached(bundle(args=SLEEP, resources=resources))
    path = file_of("rdma", runtime.group(container), "rdma.max", "rdma.max")
    assert f"{devices[0]} hca_handle=3 hca_object=100\n" in path.read_text()
