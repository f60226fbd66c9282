"""Many plugins' adjustments as one: order, conflicts, and what each plugin sees."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from ocirt.errors import Error
from ocirt_api.nri import api_pb2 as nri
from ocirt_api.nri import owners_pb2
from ocirt_cri.nri import adjust, objects
from ocirt_cri.nri.changes import Changes
from tests.unit.cri.nri.messages import adjustments, document
from tests.unit.cri.spec.requests import CONTAINER_ID, HOST, Lookups, config

DOCUMENT = document()


class Made:
    """What of a container its message is made from."""

    id, pod_id, config = CONTAINER_ID, "pod", config()

    class status:
        class image:
            image = "busybox"

        image_ref = "busybox@sha256:1"
        image_id = "sha256:2"


def shown(given: dict[str, Any] | None = None) -> nri.Container:
    """The container of a document, as a plugin sees it."""
    made: Any = Made()
    return objects.container(made, DOCUMENT if given is None else given)


def answer(given: dict[str, Any], **more: Any) -> nri.CreateContainerResponse:
    """A plugin's answer, in protobuf's JSON."""
    return json_format.ParseDict({"adjust": given, **more}, nri.CreateContainerResponse())


def resources(**given: Any) -> dict[str, Any]:
    return {"linux": {"resources": given}}


def value(number: int | str) -> dict[str, int | str]:
    return {"value": number}


# What is set, and the name of the claim in the error.
CLAIMS = [
    ({"annotations": {"a": "1"}}, "Annotations a"),
    ({"mounts": [{"destination": "/a"}]}, "Mounts /a"),
    ({"env": [{"key": "A", "value": "1"}]}, "Env A"),
    ({"args": ["sh"]}, "Args"),
    ({"rlimits": [{"type": "RLIMIT_CORE"}]}, "Rlimits RLIMIT_CORE"),
    ({"CDIDevices": [{"name": "v.com/c=0"}]}, "CdiDevices v.com/c=0"),
    ({"linux": {"devices": [{"path": "/dev/a"}]}}, "Devices /dev/a"),
    ({"linux": {"cgroupsPath": "/x"}}, "CgroupsPath"),
    ({"linux": {"oomScoreAdj": value(0)}}, "OomScoreAdj"),
    ({"linux": {"ioPriority": {}}}, "IoPriority"),
    ({"linux": {"seccompPolicy": {}}}, "SeccompPolicy"),
    ({"linux": {"scheduler": {}}}, "LinuxSched"),
    ({"linux": {"memoryPolicy": {}}}, "MemoryPolicy"),
    ({"linux": {"namespaces": [{"type": "uts"}]}}, "Namespace uts"),
    ({"linux": {"sysctl": {"a.b": "1"}}}, "Sysctl a.b"),
    ({"linux": {"netDevices": {"eth1": {}}}}, "LinuxNetDevices eth1"),
    ({"linux": {"rdt": {"closId": value("a")}}}, "RdtClosID"),
    ({"linux": {"rdt": {"schemata": {"value": ["a"]}}}}, "RdtSchemata"),
    ({"linux": {"rdt": {"enableMonitoring": {"value": True}}}}, "RdtEnableMonitoring"),
    (resources(memory={"limit": value(0)}), "MemLimit"),
    (resources(memory={"reservation": value(0)}), "MemReservation"),
    (resources(memory={"swap": value(0)}), "MemSwapLimit"),
    (resources(memory={"kernel": value(0)}), "MemKernelLimit"),
    (resources(memory={"kernelTcp": value(0)}), "MemTCPLimit"),
    (resources(memory={"swappiness": value(0)}), "MemSwappiness"),
    (resources(memory={"disableOomKiller": {"value": False}}), "MemDisableOomKiller"),
    (resources(memory={"useHierarchy": {"value": False}}), "MemUseHierarchy"),
    (resources(cpu={"shares": value(0)}), "CPUShares"),
    (resources(cpu={"quota": value(0)}), "CPUQuota"),
    (resources(cpu={"period": value(0)}), "CPUPeriod"),
    (resources(cpu={"realtimeRuntime": value(0)}), "CPURealtimeRuntime"),
    (resources(cpu={"realtimePeriod": value(0)}), "CPURealtimePeriod"),
    (resources(cpu={"cpus": "0"}), "CPUSetCPUs"),
    (resources(cpu={"mems": "0"}), "CPUSetMems"),
    (resources(hugepageLimits=[{"pageSize": "2MB"}]), "HugepageLimits 2MB"),
    (resources(unified={"memory.high": "1"}), "CgroupsUnified memory.high"),
    (resources(blockioClass=value("a")), "BlockioClass"),
    (resources(rdtClass=value("a")), "RdtClass"),
    (resources(pids={"limit": 1}), "PidsLimit"),
]


@pytest.mark.parametrize(("given", "claim"), CLAIMS, ids=[claim for _, claim in CLAIMS])
def test_what_two_plugins_may_not_both_set(given: dict[str, Any], claim: str) -> None:
    changes = Changes(shown())
    changes.apply(answer(given), "10-one")
    with pytest.raises(Error) as refused:
        changes.apply(answer(given), "20-two")
    assert refused.value.message == f"plugins '20-two' and '10-one' both tried to set {claim}"
    assert refused.value.code == "state"


def test_every_field_can_be_claimed() -> None:
    claimed = {claim.partition(" ")[0] for _, claim in CLAIMS}
    assert claimed | {"None", "OciHooks"} == set(owners_pb2.Field.keys())


# What one plugin sets, how another one takes that away, and sets it anew.
REMOVALS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"annotations": {"a": "1"}}, {"annotations": {"-a": "", "a": "2"}}),
    ({"mounts": [{"destination": "/a"}]}, {"mounts": [{"destination": "/a", "source": "2"}, {"destination": "-/a"}]}),
    ({"env": [{"key": "A", "value": "1"}]}, {"env": [{"key": "-A"}, {"key": "A", "value": "2"}]}),
    ({"args": ["one"]}, {"args": ["", "two"]}),
    (
        {"linux": {"devices": [{"path": "/dev/a"}]}},
        {"linux": {"devices": [{"path": "-/dev/a"}, {"path": "/dev/a", "type": "c"}]}},
    ),
    ({"linux": {"sysctl": {"a": "1"}}}, {"linux": {"sysctl": {"-a": "", "a": "2"}}}),
    ({"linux": {"netDevices": {"a": {}}}}, {"linux": {"netDevices": {"-a": {}, "a": {"name": "b"}}}}),
    ({"linux": {"rdt": {"closId": value("a")}}}, {"linux": {"rdt": {"remove": True, "closId": value("b")}}}),
]


@pytest.mark.parametrize(("first", "second"), REMOVALS, ids=[str(list(first)) for first, _ in REMOVALS])
def test_who_takes_away_first_may_set_anew(first: dict[str, Any], second: dict[str, Any]) -> None:
    """And a third one may not."""
    changes = Changes(shown())
    changes.apply(answer(first), "10-one")
    changes.apply(answer(second), "20-two")
    with pytest.raises(Error, match="plugins '30-three' and '20-two' both"):
        changes.apply(answer(first), "30-three")


@given(wanted=adjustments())
def test_one_plugin_gets_what_it_wants(wanted: nri.ContainerAdjustment) -> None:
    """Collected or not, its adjustment makes the same document."""
    if list(wanted.args) and not all(wanted.args):
        del wanted.args[:]  # an empty word in front is for plugins, and not for the program
    changes = Changes(shown())
    changes.apply(nri.CreateContainerResponse(adjust=wanted), "10-one")
    lookups = Lookups()
    direct = nri.ContainerAdjustment()
    direct.CopyFrom(wanted)
    # Removals first, as in the interface.
    for entries, name in ((direct.env, "key"), (direct.mounts, "destination"), (direct.linux.devices, "path")):
        ordered = sorted(entries, key=lambda one, name=name: not getattr(one, name).startswith("-"))
        copies = [type(one).FromString(one.SerializeToString()) for one in ordered]
        del entries[:]
        entries.extend(copies)  # type: ignore[arg-type]
    assert adjust.adjusted(DOCUMENT, changes.adjust, HOST, lookups) == adjust.adjusted(DOCUMENT, direct, HOST, lookups)


@given(wanted=st.lists(adjustments(), min_size=1, max_size=3))
def test_a_plugin_sees_what_those_before_it_have_made(wanted: list[nri.ContainerAdjustment]) -> None:
    """The container that the next one is asked about is the one that the adjusted document makes."""
    changes = Changes(shown())
    for number, one in enumerate(wanted):
        one.linux.ClearField("resources")  # fitted to the host later
        one.linux.ClearField("rdt")
        one.linux.ClearField("oom_score_adj")
        try:
            changes.apply(nri.CreateContainerResponse(adjust=one), f"{number:02}-plugin")
        except Error as err:
            assert err.code == "state"
            return
    found = shown(adjust.adjusted(DOCUMENT, changes.adjust, HOST, Lookups()))
    seen = changes.container
    assert dict(seen.annotations) == dict(found.annotations)
    assert sorted(seen.env) == sorted(found.env)
    assert list(seen.args) == list(found.args)
    assert seen.hooks == found.hooks
    assert {one.destination: one for one in seen.mounts} == {one.destination: one for one in found.mounts}
    assert {one.path: one for one in seen.linux.devices} == {one.path: one for one in found.linux.devices}
    assert {one.type: one for one in seen.linux.namespaces} == {one.type: one for one in found.linux.namespaces}
    assert dict(seen.linux.sysctl) == dict(found.linux.sysctl)
    assert seen.linux.cgroups_path == found.linux.cgroups_path
    assert len(seen.mounts) == len(found.mounts)


def test_owners_are_told_as_the_interface_has_them() -> None:
    changes = Changes(shown())
    changes.apply(answer({"env": [{"key": "A"}], "args": ["x"], "hooks": {"poststop": [{"path": "/a"}]}}), "10-one")
    changes.apply(answer({"hooks": {"prestart": [{"path": "/b"}]}}), "20-two")
    owners = changes.owners.message().owners[CONTAINER_ID]
    assert owners.compound[owners_pb2.Field.Value("Env")].owners["A"] == "10-one"
    assert owners.simple[owners_pb2.Field.Value("Args")] == "10-one"
    assert owners.simple[owners_pb2.Field.Value("OciHooks")] == "10-one,20-two"


def test_the_new_container_cannot_be_updated() -> None:
    changes = Changes(shown())
    with pytest.raises(Error, match="asked for an update of the container that is being created"):
        changes.apply(answer({}, update=[{"containerId": CONTAINER_ID}]), "10-one")


def test_evictions_are_collected() -> None:
    changes = Changes(shown())
    changes.apply(answer({}, evict=[{"containerId": "a", "reason": "room"}]), "10-one")
    changes.apply(answer({}, evict=[{"containerId": "b"}]), "20-two")
    assert [(one.container_id, one.reason) for one in changes.evictions] == [("a", "room"), ("b", "")]
