"""Mounts: the kernel's, the pod's, the image's, the request's; their order, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec.build import Built
from ocirt_cri.spec.imagevolumes import WantedVolume, wanted_volumes
from ocirt_cri.spec.inputs import Directory, ImageVolume
from ocirt_cri.spec.usernamespace import IdMap
from tests.unit.cri.spec.requests import (
    HOST,
    Lookups,
    config,
    image,
    made,
    options,
    pod,
    pod_config,
    refused,
    secure,
    secure_pod,
    userns,
    with_host,
    with_settings,
)

PRIVATE, SLAVE, SHARED = cri.PROPAGATION_PRIVATE, cri.PROPAGATION_HOST_TO_CONTAINER, cri.PROPAGATION_BIDIRECTIONAL


def mount(container: str = "/mnt", host: str = "/srv/data", **changes: Any) -> cri.Mount:
    return cri.Mount(container_path=container, host_path=host, **changes)


def mounted(found: Built) -> dict[str, dict[str, Any]]:
    entries = {one["destination"]: one for one in found.document["mounts"]}
    assert len(entries) == len(found.document["mounts"])
    return entries


def entry(*given: cri.Mount, **more: Any) -> dict[str, Any]:
    """What the first of the mounts becomes."""
    return mounted(made(config(mounts=given), **more))[given[0].container_path]


def test_what_every_container_has() -> None:
    found = mounted(made())
    assert list(found) == [
        "/proc",
        "/dev",
        "/sys",
        "/dev/pts",
        "/dev/mqueue",
        "/dev/shm",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/etc/hostname",
        "/sys/fs/cgroup",
    ]
    assert "ro" in found["/sys"]["options"]
    assert "ro" in found["/sys/fs/cgroup"]["options"]
    assert found["/dev/shm"]["source"] == "/run/pod/shm"
    assert found["/etc/hosts"]["options"] == ["rbind", "rprivate"]


def test_files_of_the_pod_in_a_read_only_root() -> None:
    found = mounted(made(secure(readonly_rootfs=True)))
    assert [found[f"/etc/{name}"]["options"][-1] for name in ("hosts", "resolv.conf", "hostname")] == ["ro"] * 3


def test_files_that_the_pod_has_not() -> None:
    found = mounted(made(of=pod(hosts="", hostname_file="", shm="")))
    assert not {"/etc/hosts", "/etc/hostname"} & found.keys()
    assert found["/dev/shm"]["type"] == "tmpfs"
    assert "size=67108864" in found["/dev/shm"]["options"]


def test_shared_memory_of_the_node() -> None:
    modes = options(ipc=cri.NODE)
    found = mounted(made(secure(namespace_options=modes), of=secure_pod(namespace_options=modes)))
    assert found["/dev/shm"]["source"] == "/dev/shm"


def test_cgroups_to_write_to() -> None:
    assert "ro" not in mounted(made(settings=with_settings(cgroup_writable=True)))["/sys/fs/cgroup"]["options"]


def test_order_and_what_takes_the_place_of_what() -> None:
    given = config(
        mounts=[
            mount("/a/b/c", "/1"),
            mount("/etc/hosts", "/kubelet/hosts"),
            mount("/a/", "/2"),
            mount("/dev/shm", "/big"),
            mount("/a/b", "/3"),
            mount("/sys", "/sys"),
        ]
    )
    found = mounted(made(given))
    assert list(found) == [
        "/proc",
        "/dev",
        "/a",
        "/sys",
        "/dev/pts",
        "/dev/mqueue",
        "/etc/resolv.conf",
        "/etc/hostname",
        "/etc/hosts",
        "/dev/shm",
        "/a/b",
        "/sys/fs/cgroup",
        "/a/b/c",
    ]
    assert found["/etc/hosts"]["source"] == "/kubelet/hosts"
    assert found["/dev/shm"]["source"] == "/big"
    assert found["/sys"]["type"] == "bind"


def test_a_dev_of_its_own() -> None:
    """All that would be below it is whoever's /dev that is."""
    found = mounted(made(config(mounts=[mount("/dev", "/dev"), mount("/dev/x", "/y")])))
    assert [path for path in found if path.startswith("/dev")] == ["/dev", "/dev/x"]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, ["rbind", "rprivate"]),
        ({"readonly": True}, ["rbind", "rprivate", "ro"]),
        ({"readonly": True, "recursive_read_only": True}, ["rbind", "rprivate", "rro"]),
        ({"propagation": SLAVE}, ["rbind", "rslave"]),
        ({"propagation": SHARED}, ["rbind", "rshared"]),
        ({"propagation": SHARED, "readonly": True}, ["rbind", "rshared", "ro"]),
        ({"mount_options": ["noexec", "nodev"]}, ["rbind", "rprivate", "noexec", "nodev"]),
        ({"readonly": True, "mount_options": ["nosuid"]}, ["rbind", "rprivate", "ro", "nosuid"]),
    ],
)
def test_options(changes: dict[str, Any], wanted: list[str]) -> None:
    found = entry(mount(**changes), lookups=Lookups(kinds={"/srv/data": "shared"}))
    assert found == {"destination": "/mnt", "type": "bind", "source": "/srv/data", "options": wanted}


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [((PRIVATE,), None), ((SLAVE, PRIVATE), "rslave"), ((SLAVE, SHARED), "rshared"), ((SHARED, SLAVE), "rshared")],
)
def test_propagation_of_the_root(kinds: tuple[cri.MountPropagation.ValueType, ...], wanted: str | None) -> None:
    given = [mount(f"/m{number}", propagation=kind) for number, kind in enumerate(kinds)]
    found = made(config(mounts=given), lookups=Lookups(kinds={"/srv/data": "shared"})).document["linux"]
    assert found.get("rootfsPropagation") == wanted


@pytest.mark.parametrize(
    ("asked", "there", "word"),
    [
        (SHARED, "private", "not a shared mount"),
        (SHARED, "slave", "not a shared mount"),
        (SLAVE, "private", "not a shared or slave mount"),
    ],
)
def test_propagation_that_the_host_has_not(asked: cri.MountPropagation.ValueType, there: str, word: str) -> None:
    lookups = Lookups(kinds={"/srv/data": there})
    refused(lambda: entry(mount(propagation=asked), lookups=lookups), "config.mounts[0].propagation", word)


def test_slave_of_a_slave() -> None:
    assert "rslave" in entry(mount(propagation=SLAVE), lookups=Lookups(kinds={"/srv/data": "slave"}))["options"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"recursive_read_only": True}, "can be written to"),
        ({"recursive_read_only": True, "readonly": True, "propagation": SLAVE}, "PROPAGATION_HOST_TO_CONTAINER"),
        ({"recursive_read_only": True, "readonly": True, "propagation": SHARED}, "PROPAGATION_BIDIRECTIONAL"),
    ],
)
def test_recursive_read_only_that_contradicts(changes: dict[str, Any], word: str) -> None:
    lookups = Lookups(kinds={"/srv/data": "shared"})
    refused(lambda: entry(mount(**changes), lookups=lookups), "config.mounts[0].recursive_read_only", word)


def test_recursive_read_only_that_cannot_be_had() -> None:
    given = mount(readonly=True, recursive_read_only=True)
    error = refused(
        lambda: entry(given, host=with_host(recursive_read_only=False)),
        "RROUnsupported: config.mounts[0].recursive_read_only",
        code="unsupported",
    )
    assert str(error).startswith("RROUnsupported")


def test_links_and_what_is_missing() -> None:
    lookups = Lookups(links={"/link": "/real/place"}, missing=("/not/there/",))
    assert entry(mount(host="/link"), lookups=lookups)["source"] == "/real/place"
    found = made(config(mounts=[mount(host="/not/there/")]), lookups=lookups)
    assert found.directories == (Directory(path="/not/there", mode=0o755),)
    assert mounted(found)["/mnt"]["source"] == "/not/there"
    assert found.mounts[0].host_path == "/not/there/"
    strict = with_settings(make_host_paths=False)
    refused(lambda: entry(mount(host="/not/there/"), lookups=lookups, settings=strict), "config.mounts[0].host_path", "not there")


def test_paths_that_cannot_be_looked_at() -> None:
    broken = Lookups(broken=("/srv/data",))
    refused(lambda: entry(mount(), lookups=broken), "config.mounts[0].host_path", "Input/output error")
    later = Lookups(broken=("/srv/data!",))
    refused(lambda: entry(mount(propagation=SLAVE), lookups=later), "config.mounts[0].host_path", "Input/output error")


def test_ids_of_a_mount() -> None:
    lines = [cri.IDMapping(host_id=100000, container_id=0, length=65536)]
    found = entry(mount(uidMappings=lines, gidMappings=lines))
    assert found["uidMappings"] == found["gidMappings"] == [{"containerID": 0, "hostID": 100000, "size": 65536}]
    given = mount(uidMappings=lines, gidMappings=lines)
    without = with_host(idmapped_mounts=False)
    refused(lambda: entry(given, host=without), "config.mounts[0].uidMappings", code="unsupported")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"uids": [(1, 0, 5)]}, "gidMappings"),
        ({"gids": [(1, 0, 5)]}, "uidMappings"),
        ({"uids": [(1, 0, 0)], "gids": [(1, 0, 5)]}, "uidMappings[0]"),
        ({"uids": [(1, 0, 5)], "gids": [(1, 0, 5), (20, 3, 5)]}, "gidMappings[1]"),
        ({"uids": [(1, 0, 5)] * 341, "gids": [(1, 0, 5)]}, "uidMappings"),
        ({"uids": [((1 << 32) - 1, 0, 5)], "gids": [(1, 0, 5)]}, "uidMappings[0]"),
    ],
)
def test_bad_ids_of_a_mount(changes: dict[str, Any], field: str) -> None:
    made_of: dict[str, Any] = {
        f"{name[:-1]}Mappings": [
            cri.IDMapping(host_id=host, container_id=inside, length=length) for host, inside, length in ranges
        ]
        for name, ranges in changes.items()
    }
    refused(lambda: entry(mount(**made_of)), f"config.mounts[0].{field}")


def test_user_namespace_in_the_nodes_network() -> None:
    """A fresh sysfs would be refused by the kernel: the host's is shown, to be read only."""
    modes = userns(network=cri.NODE)
    found = mounted(made(secure(namespace_options=modes), of=secure_pod(namespace_options=modes)))
    assert found["/sys"]["type"] == "bind"
    assert "rro" in found["/sys"]["options"]


def test_terminals_of_a_small_user_namespace() -> None:
    modes = userns(length=5)
    found = mounted(made(secure(namespace_options=modes), of=secure_pod(namespace_options=modes)))
    assert not [word for word in found["/dev/pts"]["options"] if word.startswith("gid=")]


# -- volumes of the image ------------------------------------------------------------------------------------------------------


def test_volumes_of_the_image() -> None:
    """One that is there stays in the writable layer; one that is not is a directory of the host's; the request's comes first."""
    of = image(
        volumes=("/data", "/new", "/taken/", "/taken/below", "relative", "/", "/sys/fs/cgroup", "/proc", "/etc/hosts", "/dev/x")
    )
    found = made(config(mounts=[mount("/taken")]), image=of)
    entries = mounted(found)
    assert "/data" not in entries
    assert entries["/taken"]["source"] == "/srv/data"
    assert entries["/new"]["source"] == found.directories[0].path
    assert found.directories[0].path.startswith("/var/lib/ocirt/containers/")
    assert len(found.directories) == 1
    assert entries["/sys/fs/cgroup"]["type"] == "cgroup"


def test_volumes_of_the_image_with_a_read_only_root() -> None:
    entries = mounted(made(secure(readonly_rootfs=True), image=image(volumes=("/data", "/new"))))
    assert "tmpcopyup" in entries["/data"]["options"]
    assert entries["/new"]["type"] == "bind"


def test_volumes_belong_to_root_of_the_user_namespace() -> None:
    modes = userns()
    of = image(volumes=("/new",))
    found = made(secure(namespace_options=modes), of=secure_pod(namespace_options=modes), image=of)
    assert (found.directories[0].uid, found.directories[0].gid) == (100000, 100000)


# -- images as volumes ---------------------------------------------------------------------------------------------------------


def volume(container: str = "/vol", **changes: Any) -> cri.Mount:
    values: dict[str, Any] = {"readonly": True, "image": cri.ImageSpec(image="data:1")}
    return cri.Mount(container_path=container, **values | changes)


ONE = ImageVolume(paths=("/layers/1",), image_ref="sha256:1")
MANY = ImageVolume(paths=("/layers/2", "/layers/1"), image_ref="sha256:2")


def test_image_of_one_layer() -> None:
    found = made(config(mounts=[mount(), volume()]), volumes={1: ONE})
    one = mounted(found)["/vol"]
    assert (one["type"], one["source"]) == ("bind", "/layers/1")
    assert "ro" in one["options"]
    assert "noexec" not in one["options"]
    assert found.mounts[1].image.image_ref == "sha256:1"
    assert found.mounts[1].image.image == "data:1"


def test_image_of_many_layers() -> None:
    one = mounted(made(config(mounts=[volume(mount_options=["noexec"])]), volumes={0: MANY}))["/vol"]
    assert one["type"] == "overlay"
    assert one["options"] == ["ro", "nosuid", "nodev", "noexec", "lowerdir+=/layers/2", "lowerdir+=/layers/1"]


@pytest.mark.parametrize(
    ("of", "kernel", "mounted_before", "ids"),
    [
        (pod_config(), (6, 6), False, None),
        (pod_config(), (6, 1), True, None),
        (secure_pod(namespace_options=userns()), (6, 6), True, IdMap(100000, 100000, 65536)),
    ],
)
def test_images_to_prepare(of: cri.PodSandboxConfig, kernel: tuple[int, int], mounted_before: bool, ids: IdMap | None) -> None:
    given = config(mounts=[mount(), volume(image_sub_path="etc/"), volume("/other")])
    assert wanted_volumes(of, given, with_host(kernel=kernel)) == [
        WantedVolume(1, "data:1", "etc", mounted_before, ids),
        WantedVolume(2, "data:1", "", mounted_before, ids),
    ]


def test_no_images_to_prepare() -> None:
    assert wanted_volumes(pod_config(), config(mounts=[mount()]), HOST) == []


@pytest.mark.parametrize(
    ("changes", "field", "word"),
    [
        ({"readonly": False}, "ImageVolumeMountFailed: config.mounts[0].readonly", "can only be read"),
        ({"image_sub_path": "../x"}, "ImageVolumeMountFailed: config.mounts[0].image_sub_path", "leads out"),
        ({"image_sub_path": "/x"}, "ImageVolumeMountFailed: config.mounts[0].image_sub_path", "leads out"),
        ({"image_sub_path": "a/../../b"}, "ImageVolumeMountFailed: config.mounts[0].image_sub_path", "leads out"),
        ({"image_sub_path": "gone"}, "ImageVolumeMountFailed: config.mounts[0].image", "nothing at 'gone'"),
        ({}, "ImageVolumeMountFailed: config.mounts[0].image", "not there"),
        ({"host_path": "/x"}, "config.mounts[0].host_path", "one of the two"),
        ({"image": cri.ImageSpec()}, "config.mounts[0].image.image", "no image"),
        ({"propagation": SHARED}, "config.mounts[0].propagation", "PRIVATE"),
    ],
)
def test_bad_images(changes: dict[str, Any], field: str, word: str) -> None:
    refused(lambda: made(config(mounts=[volume(**changes)])), field, word)


def test_labels_of_files() -> None:
    given = config(mounts=[mount(selinux_relabel=True), mount("/b", "/other")])
    assert made(given, host=with_host(selinux=True)).relabel == ("/srv/data",)
    assert made(given).relabel == ()
