"""Devices, by path and by CDI name."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec.inputs import CdiDocument, DeviceNode
from tests.unit.cri.spec.requests import (
    Lookups,
    config,
    made,
    refused,
    secure,
    secure_pod,
    userns,
    with_settings,
)

DENY = {"allow": False, "access": "rwm"}
NODE = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666, "uid": 0, "gid": 0}
RULE = {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"}


def device(host: str = "/dev/fuse", container: str = "", permissions: str = "") -> cri.Device:
    return cri.Device(host_path=host, container_path=container, permissions=permissions)


def linux(given: cri.ContainerConfig, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = made(given, **more).document["linux"]
    return found


def test_no_devices() -> None:
    found = linux(config())
    assert "devices" not in found
    assert found["resources"]["devices"] == [DENY]


@pytest.mark.parametrize(
    ("container", "permissions", "path", "access"),
    [("", "", "/dev/fuse", "rwm"), ("/dev/f", "r", "/dev/f", "r"), ("/opt/./f/", "rw", "/opt/f", "rw")],
)
def test_device(container: str, permissions: str, path: str, access: str) -> None:
    found = linux(config(devices=[device(container=container, permissions=permissions)]))
    assert found["devices"] == [NODE | {"path": path}]
    assert found["resources"]["devices"] == [DENY, RULE | {"access": access}]


def test_a_link_to_a_device() -> None:
    found = linux(config(devices=[device("/dev/disk/by-id/x")]), lookups=Lookups(links={"/dev/disk/by-id/x": "/dev/sda"}))
    assert found["devices"][0] | {"path": ""} == {
        "path": "",
        "type": "b",
        "major": 8,
        "minor": 0,
        "fileMode": 0o660,
        "uid": 0,
        "gid": 6,
    }
    assert found["devices"][0]["path"] == "/dev/disk/by-id/x"


def test_a_directory_of_devices() -> None:
    below = [DeviceNode(path=f"/dev/snd/{name}", kind="c", major=116, minor=number) for number, name in enumerate(("a", "b/c"))]
    lookups = Lookups(trees={"/dev/snd": below})
    found = linux(config(devices=[device("/dev/snd", "/dev/sound")]), lookups=lookups)
    assert [node["path"] for node in found["devices"]] == ["/dev/sound/a", "/dev/sound/b/c"]
    assert len(found["resources"]["devices"]) == 3


def test_devices_of_the_user() -> None:
    given = secure(run_as_user=cri.Int64Value(value=1000))
    given.devices.append(device())
    assert linux(given, settings=with_settings(device_owner=True))["devices"] == [NODE | {"uid": 1000, "gid": 1001}]
    assert linux(given)["devices"] == [NODE]


def test_devices_in_a_user_namespace() -> None:
    """No nodes can be made there: at another path the host's is bound, at the same path the runtime does so."""
    modes = userns()
    given = secure(namespace_options=modes)
    given.devices.extend([device(), device("/dev/sda", "/dev/disk")])
    found = made(given, of=secure_pod(namespace_options=modes)).document
    assert [node["path"] for node in found["linux"]["devices"]] == ["/dev/fuse"]
    (bound,) = [one for one in found["mounts"] if one["destination"] == "/dev/disk"]
    assert bound["source"] == "/dev/sda"
    assert len(found["linux"]["resources"]["devices"]) == 3


@pytest.mark.parametrize(
    ("given", "field", "word"),
    [
        (device("/dev/gone"), "host_path", "No such file"),
        (device("/etc/passwd"), "host_path", "not a device"),
        (device(""), "host_path", "absolute"),
        (device("dev/x"), "host_path", "absolute"),
        (device(container="x"), "container_path", "absolute"),
        (device(permissions="rx"), "permissions", "no set"),
    ],
)
def test_bad_devices(given: cri.Device, field: str, word: str) -> None:
    lookups = Lookups(missing=("/dev/gone",))
    refused(lambda: made(config(devices=[given]), lookups=lookups), f"config.devices[0].{field}", word)


def test_devices_that_cannot_be_looked_at() -> None:
    lookups = Lookups(broken=("/dev/fuse!", "/dev!"))
    refused(lambda: made(config(devices=[device()]), lookups=lookups), "config.devices[0].host_path", "Input/output")
    privileged = "config.linux.security_context.privileged"
    refused(lambda: made(secure(privileged=True), of=secure_pod(privileged=True), lookups=lookups), privileged, "Input/output")


def test_a_device_twice() -> None:
    given = config(devices=[device(), device("/dev/sda", "/dev/fuse/")])
    refused(lambda: made(given), "config.devices[1].container_path", "config.devices[0]")


def test_the_hosts_own_dev_is_not_the_containers() -> None:
    paths = ("/dev/console", "/dev/ptmx", "/dev/pts/0", "/dev/shm/x", "/dev/.udev/y", "/dev/kvm")
    lookups = Lookups(trees={"/dev": [DeviceNode(path=path, kind="c", major=1, minor=1) for path in paths]})
    found = linux(secure(privileged=True), of=secure_pod(privileged=True), lookups=lookups)
    assert [node["path"] for node in found["devices"]] == ["/dev/kvm"]


# -- CDI -----------------------------------------------------------------------------------------------------------------------


def specification(edits: Any, *, common: Any = None, kind: str = "vendor.com/gpu", rank: int = 0, name: str = "0") -> CdiDocument:
    document = {"cdiVersion": "0.6.0", "kind": kind, "devices": [{"name": name, "containerEdits": edits}]}
    if common is not None:
        document["containerEdits"] = common
    return CdiDocument(directory=rank, path=f"/etc/cdi/{rank}.json", document=document)


def injected(*documents: CdiDocument, names: tuple[str, ...] = ("vendor.com/gpu=0",), **more: Any) -> dict[str, Any]:
    lookups = Lookups(specifications=documents, missing=("/dev/gone",))
    given = config(CDI_devices=[cri.CDIDevice(name=name) for name in names])
    given.MergeFrom(more.pop("given", cri.ContainerConfig()))
    found: dict[str, Any] = made(given, lookups=lookups, **more).document
    return found


def test_environment_mounts_hooks_and_groups() -> None:
    edits = {
        "env": ["GPU=0", "HOSTNAME=gpu"],
        "mounts": [
            {"hostPath": "/usr/lib/x.so", "containerPath": "/lib/x.so", "options": ["ro", "nosuid"]},
            {"hostPath": "tmpfs", "containerPath": "/scratch", "type": "tmpfs", "options": ["size=1m"]},
            {"hostPath": "/mine", "containerPath": "/mnt"},
        ],
        "hooks": [{"hookName": "createContainer", "path": "/usr/bin/hook", "args": ["hook", "x"], "env": ["A=1"], "timeout": 5}],
        "additionalGids": [44, 0],
    }
    given = config(mounts=[cri.Mount(container_path="/mnt", host_path="/theirs")])
    found = injected(specification(edits), given=given)
    assert found["process"]["env"][-2:] == ["HOSTNAME=gpu", "GPU=0"]
    mounts = {one["destination"]: one for one in found["mounts"]}
    assert mounts["/lib/x.so"]["options"] == ["rbind", "ro", "nosuid"]
    assert (mounts["/scratch"]["type"], mounts["/scratch"]["options"]) == ("tmpfs", ["size=1m"])
    assert mounts["/mnt"]["source"] == "/mine"
    assert found["hooks"] == {"createContainer": [{"path": "/usr/bin/hook", "args": ["hook", "x"], "env": ["A=1"], "timeout": 5}]}
    assert found["process"]["user"]["additionalGids"] == [0, 44]


@pytest.mark.parametrize(
    ("node", "wanted", "access"),
    [
        ({"path": "/dev/fuse"}, NODE, "rwm"),
        ({"path": "/dev/g", "hostPath": "/dev/fuse", "permissions": "rw"}, NODE | {"path": "/dev/g"}, "rw"),
        ({"path": "/dev/fuse", "fileMode": 0o600, "uid": 5, "gid": 6}, NODE | {"fileMode": 0o600, "uid": 5, "gid": 6}, "rwm"),
        (
            {"path": "/dev/never", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640},
            NODE | {"path": "/dev/never", "fileMode": 0o640},
            "rwm",
        ),
    ],
)
def test_nodes(node: dict[str, Any], wanted: dict[str, Any], access: str) -> None:
    found = injected(specification({"deviceNodes": [node]}))["linux"]
    assert found["devices"] == [wanted]
    assert found["resources"]["devices"] == [DENY, RULE | {"access": access}]


def test_what_else_a_specification_says() -> None:
    edits = {
        "intelRdt": {"closID": "gpu", "l3CacheSchema": "L3:0=f"},
        "netDevices": [{"hostInterfaceName": "eth9", "name": "net1"}],
    }
    found = injected(specification(edits))["linux"]
    assert found["intelRdt"] == {"closID": "gpu", "l3CacheSchema": "L3:0=f"}
    assert found["netDevices"] == {"eth9": {"name": "net1"}}


def test_edits_of_all_devices_once() -> None:
    document = {
        "cdiVersion": "0.6.0",
        "kind": "vendor.com/gpu",
        "containerEdits": {"hooks": [{"hookName": "prestart", "path": "/common"}]},
        "devices": [
            {"name": name, "containerEdits": {"hooks": [{"hookName": "prestart", "path": f"/{name}"}]}} for name in ("0", "1")
        ],
    }
    names = ("vendor.com/gpu=1", "vendor.com/gpu=0", "vendor.com/gpu=1")
    found = injected(CdiDocument(directory=0, path="/etc/cdi/a.json", document=document), names=names)
    assert [hook["path"] for hook in found["hooks"]["prestart"]] == ["/common", "/1", "/0"]


def test_names_in_annotations() -> None:
    given = config(annotations={"cdi.k8s.io/plugin": "vendor.com/gpu=0,vendor.com/nic=0", "other": "vendor.com/gpu=9"})
    documents = (specification({"env": ["GPU=1"]}), specification({"env": ["NIC=1"]}, kind="vendor.com/nic"))
    found = injected(*documents, names=(), given=given)
    assert found["process"]["env"][-2:] == ["GPU=1", "NIC=1"]


def test_the_directory_of_the_higher_rank_counts() -> None:
    found = injected(specification({"env": ["FROM=etc"]}), specification({"env": ["FROM=run"]}, rank=1))
    assert found["process"]["env"][-1] == "FROM=run"


def test_a_device_in_two_specifications() -> None:
    documents = (specification({}), specification({}))
    refused(lambda: injected(*documents), "config.CDI_devices[0].name", "/etc/cdi/0.json")


FIELD = "config.CDI_devices[0].name"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gpu",
        "vendor.com/gpu",
        "vendor.com=0",
        "vendor.com/gpu=",
        "/gpu=0",
        "9v/gpu=0",
        "vendor.com/g.pu=0",
        "v/g=0 ",
        "v/g=../x",
    ],
)
def test_bad_names(name: str) -> None:
    refused(lambda: injected(names=(name,)), FIELD, "no name of a CDI device")


def test_devices_that_are_not_there() -> None:
    refused(injected, FIELD, "no CDI device 'vendor.com/gpu=0'", "there are none", "/etc/cdi")
    other = specification({}, kind="vendor.com/nic")
    refused(lambda: injected(other), FIELD, "vendor.com/nic")
    refused(lambda: injected(specification({}, name="1")), FIELD, "vendor.com/gpu")


@pytest.mark.parametrize(
    "document",
    [None, [], "x", {"kind": 5}, {"kind": "vendor.com/gpu", "devices": [None, "x", {}]}],
)
def test_specifications_that_are_none(document: Any) -> None:
    refused(lambda: injected(CdiDocument(directory=0, path="/x", document=document)), FIELD, "no CDI device")


@pytest.mark.parametrize(
    "edits",
    [
        {"env": ["novalue"]},
        {"env": [5]},
        {"deviceNodes": [{}]},
        {"deviceNodes": [{"path": "relative"}]},
        {"deviceNodes": [{"path": "/dev/gone"}]},
        {"deviceNodes": [{"path": "/etc/passwd"}]},
        {"deviceNodes": [{"path": "/dev/fuse", "permissions": "x"}]},
        {"mounts": [{"hostPath": "/x"}]},
        {"mounts": [{"containerPath": "/x"}]},
        {"mounts": [{"hostPath": "/x", "containerPath": "x"}]},
        {"hooks": [{"hookName": "whenever", "path": "/x"}]},
        {"hooks": [{"hookName": "prestart"}]},
        {"hooks": [{"hookName": "prestart", "path": "x"}]},
        {"additionalGids": [-1]},
        {"additionalGids": ["x"]},
        {"netDevices": [{"name": "x"}]},
        5,
    ],
)
def test_edits_that_are_none(edits: Any) -> None:
    error = refused(lambda: injected(specification(edits)), FIELD, "/etc/cdi/0.json")
    assert error.cause


def test_nodes_in_a_user_namespace() -> None:
    modes = userns()
    edits = {"deviceNodes": [{"path": "/dev/g", "hostPath": "/dev/fuse", "type": "c", "major": 1, "minor": 1}]}
    found = injected(specification(edits), given=secure(namespace_options=modes), of=secure_pod(namespace_options=modes))
    (bound,) = [one for one in found["mounts"] if one["destination"] == "/dev/g"]
    assert bound["source"] == "/dev/fuse"
    assert "devices" not in found["linux"]
