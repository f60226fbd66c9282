"""Chains of plugins: who is asked what, in which order, with which result; here by plugins of others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ocirt_cni import plugins
from ocirt_cni.call import Attachment
from ocirt_cni.errors import INCOMPATIBLE_VERSION, INVALID_CONFIG, INVALID_ENVIRONMENT, TAKEN, UNKNOWN_CONTAINER, Error
from ocirt_cni.runner import execute, lists, operations
from ocirt_cni.runner.operations import Endpoint, Runner
from tests.support.plugins import Folder, failure

FIRST = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0"}]}
SECOND = FIRST | {"ips": [{"address": "10.1.0.2/24", "interface": 0}]}
ENDPOINT = Endpoint("c1", "/nonexistent/netns", "eth0")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "plugins")
    made.make("one", FIRST)
    made.make("two", SECOND)
    made.make("three", SECOND)
    return made


@pytest.fixture
def runner(folder: Folder, tmp_path: Path) -> Runner:
    return Runner((str(folder.bin),), str(tmp_path / "cni"), timeout=60)


def network(*plugins: str | dict[str, Any], **more: Any) -> lists.Network:
    listed = [{"type": one} if isinstance(one, str) else one for one in plugins or ("one", "two", "three")]
    document = {"cniVersion": "1.1.0", "name": "net", "plugins": listed} | more
    return lists.parse(json.dumps(document).encode(), "a list")


def kept(runner: Runner) -> list[str]:
    return [str(entry.attachment) for entry in runner.attachments()]


def test_add_goes_through_the_chain_and_keeps_the_last_result(runner: Runner, folder: Folder) -> None:
    result = runner.add(network(), ENDPOINT)
    assert result.document("1.1.0") == SECOND | {"dns": {}}
    assert folder.calls() == ["ADD one", "ADD two", "ADD three"]
    confs = [told.conf for told in folder.told()]
    assert confs[0] == {"type": "one", "name": "net", "cniVersion": "1.1.0"}
    assert [conf.get("prevResult") for conf in confs] == [None, FIRST | {"dns": {}}, SECOND | {"dns": {}}]
    (entry,) = runner.attachments("c1")
    assert (entry.netns, entry.result, entry.config) == ("/nonexistent/netns", SECOND | {"dns": {}}, network().data)


def test_del_goes_backwards_with_the_result_of_add(runner: Runner, folder: Folder) -> None:
    runner.add(network(), ENDPOINT)
    runner.delete(network(), ENDPOINT)
    assert folder.calls()[3:] == ["DEL three", "DEL two", "DEL one"]
    assert all(told.conf["prevResult"] == SECOND | {"dns": {}} for told in folder.told()[3:])
    assert kept(runner) == []


def test_del_works_without_a_result_and_without_a_namespace(runner: Runner, folder: Folder) -> None:
    runner.delete(network(), Endpoint("c1"))
    assert folder.calls() == ["DEL three", "DEL two", "DEL one"]
    assert not any("prevResult" in told.conf for told in folder.told())
    assert {told.env["CNI_NETNS"] for told in folder.told()} == {""}


def test_before_0_4_0_del_has_no_result(runner: Runner, folder: Folder) -> None:
    old = network(cniVersion="0.3.1")
    runner.add(old, ENDPOINT)
    runner.delete(old, ENDPOINT)
    assert not any("prevResult" in told.conf for told in folder.told()[3:])
    assert folder.told()[1].conf["prevResult"] == {"cniVersion": "0.3.1", "interfaces": [{"name": "eth0"}], "dns": {}}


def test_a_result_of_another_version_is_translated(runner: Runner, folder: Folder) -> None:
    """The configuration was changed while the container ran."""
    runner.add(network(), ENDPOINT)
    runner.delete(network(cniVersion="0.4.0"), ENDPOINT)
    previous = folder.told()[-1].conf["prevResult"]
    assert previous["cniVersion"] == "0.4.0"
    assert previous["ips"] == [{"version": "4", "address": "10.1.0.2/24", "interface": 0}]


@pytest.mark.parametrize("text", ["{", "", "{}", '{"kind": "cniCacheV1"}', '{"cniVersion": "1.0.0", "ips": 7}'])
def test_a_broken_cache_does_not_keep_from_del(runner: Runner, folder: Folder, text: str) -> None:
    runner.add(network(), ENDPOINT)
    path = Path(runner.cache.path(Attachment("net", "c1", "eth0")))
    path.write_text(text)
    runner.delete(network(), ENDPOINT)
    assert folder.calls()[3:] == ["DEL three", "DEL two", "DEL one"]
    assert not path.exists()


def test_del_goes_on_after_failures_and_raises_the_first(runner: Runner, folder: Folder) -> None:
    """libcni stops there. The file stays, so that the next DEL has the result."""
    runner.add(network(), ENDPOINT)
    folder.make("three", DEL=failure(105, "three fails", "a hint"))
    folder.make("two", DEL=failure(106, "two fails"))
    with pytest.raises(Error) as caught:
        runner.delete(network(), ENDPOINT)
    assert caught.value.code == 105
    assert str(caught.value) == "three: three fails: two: two fails (a hint)"
    assert folder.calls()[3:] == ["DEL three", "DEL two", "DEL one"]
    assert kept(runner) == ["net c1 eth0"]
    folder.make("three")
    folder.make("two")
    runner.delete(network(), ENDPOINT)
    assert kept(runner) == []


# A failed ADD.


def test_a_failed_add_is_undone_by_all_plugins(runner: Runner, folder: Folder) -> None:
    folder.make("two", ADD=failure(107, "two fails"))
    with pytest.raises(Error) as caught:
        runner.add(network(), ENDPOINT)
    assert (caught.value.code, str(caught.value)) == (107, "two: two fails")
    assert folder.calls() == ["ADD one", "ADD two", "DEL three", "DEL two", "DEL one"]
    assert folder.told()[-1].conf["prevResult"] == FIRST | {"dns": {}}
    assert kept(runner) == []


def test_a_failed_undoing_is_said_as_well(runner: Runner, folder: Folder) -> None:
    folder.make("two", ADD=failure(107, "two fails"), DEL=failure(108, "and again"))
    with pytest.raises(Error) as caught:
        runner.add(network(), ENDPOINT)
    assert caught.value.code == 107
    assert str(caught.value) == "two: two fails: undoing it failed too: two: and again"
    assert folder.calls()[-1] == "DEL one"


def test_an_add_that_takes_too_long_is_undone(folder: Folder, tmp_path: Path) -> None:
    folder.make("two", ADD="sleep 1000")
    runner = Runner((str(folder.bin),), str(tmp_path / "cni"), timeout=2)
    with pytest.raises(Error, match="two: .*/two: it was not done after 2 s"):
        runner.add(network(), ENDPOINT)
    assert folder.calls()[-3:] == ["DEL three", "DEL two", "DEL one"]


def test_a_result_that_cannot_be_kept_is_undone(runner: Runner, folder: Folder) -> None:
    runner.add(network(name="a", plugins=[{"type": "one"}]), Endpoint("b-c", ENDPOINT.netns))
    with pytest.raises(Error, match="the file belongs to"):
        runner.add(network(name="a-b"), Endpoint("c", ENDPOINT.netns))
    assert folder.calls()[-3:] == ["DEL three", "DEL two", "DEL one"]
    assert kept(runner) == ["a b-c eth0"]


def test_a_missing_plugin_is_named_and_what_was_made_undone(runner: Runner, folder: Folder) -> None:
    with pytest.raises(Error, match="nowhere: /type: there is no plugin 'nowhere'") as caught:
        runner.add(network("one", "nowhere"), ENDPOINT)
    assert caught.value.code == INVALID_CONFIG
    assert folder.calls() == ["ADD one", "DEL one"]


def test_an_interrupt_undoes_too(runner: Runner, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    real = execute.execute

    def interrupted(name: str, call: Any, timeout: float) -> Any:
        if (name, call.command) == ("two", "ADD"):
            raise KeyboardInterrupt
        return real(name, call, timeout)

    monkeypatch.setattr(execute, "execute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.add(network(), ENDPOINT)
    assert folder.calls() == ["ADD one", "DEL three", "DEL two", "DEL one"]


def test_a_fault_of_our_own_plugin_is_an_error_that_names_it(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(plugins, "invoke", broken)
    with pytest.raises(Error, match=r"loopback: ZeroDivisionError: oops") as caught:
        runner.status(network("loopback"))
    assert caught.value.code == 999


@pytest.mark.parametrize(
    ("endpoint", "word"),
    [
        (Endpoint("", "/x"), "CNI_CONTAINERID"),
        (Endpoint("../c", "/x"), "CNI_CONTAINERID"),
        (Endpoint("c1", "/x", "a/b"), "CNI_IFNAME"),
        (Endpoint("c1", "/x", "x" * 16), "CNI_IFNAME"),
        (Endpoint("c1", "", "eth0"), "CNI_NETNS"),
    ],
)
def test_what_is_no_endpoint_is_refused(runner: Runner, folder: Folder, endpoint: Endpoint, word: str) -> None:
    with pytest.raises(Error, match=word) as caught:
        runner.add(network("one"), endpoint)
    assert caught.value.code == INVALID_ENVIRONMENT
    assert "ADD one" not in folder.calls()
    assert kept(runner) == []


# Capabilities and arguments.

PORTS = [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}]


def test_a_plugin_gets_the_capabilities_that_it_declares(runner: Runner, folder: Folder) -> None:
    listed = [
        {"type": "one", "capabilities": {"portMappings": True, "mac": False, "dns": True}},
        {"type": "two", "runtimeConfig": {"its": "own"}},
        {"type": "three", "capabilities": {"mac": True}, "runtimeConfig": {"its": "own"}},
    ]
    wanted = {"portMappings": PORTS, "mac": "02:00:00:00:00:01", "bandwidth": {}}
    runner.add(network(*listed), Endpoint("c1", "/nonexistent", capabilities=wanted))
    confs = [told.conf for told in folder.told()]
    assert confs[0]["runtimeConfig"] == {"portMappings": PORTS}
    assert confs[0]["capabilities"] == listed[0]["capabilities"]
    assert confs[1]["runtimeConfig"] == {"its": "own"}
    assert confs[2]["runtimeConfig"] == {"mac": "02:00:00:00:00:01"}


def test_del_and_check_get_the_arguments_of_add(runner: Runner, folder: Folder) -> None:
    one = network({"type": "one", "capabilities": {"portMappings": True}})
    args = [("K8S_POD_NAME", "pod"), ("IP", "10.1.0.2")]
    runner.add(one, Endpoint("c1", "/nonexistent", args=args, capabilities={"portMappings": PORTS}))
    runner.check(one, Endpoint("c1", "/nonexistent"))
    runner.delete(one, Endpoint("c1", args=()))
    assert [told.env["CNI_ARGS"] for told in folder.told()] == ["K8S_POD_NAME=pod;IP=10.1.0.2"] * 2 + [""]
    assert all(told.conf["runtimeConfig"] == {"portMappings": PORTS} for told in folder.told())


# CHECK, STATUS.


def test_check_goes_forwards_with_the_last_result(runner: Runner, folder: Folder) -> None:
    runner.add(network(), ENDPOINT)
    folder.make("three", CHECK=failure(104, "three is gone"))
    with pytest.raises(Error, match="three: three is gone"):
        runner.check(network(), ENDPOINT)
    assert folder.calls()[3:] == ["CHECK one", "CHECK two", "CHECK three"]
    assert folder.told()[3].conf["prevResult"] == SECOND | {"dns": {}}


def test_check_can_be_switched_off_and_needs_an_attachment(runner: Runner, folder: Folder) -> None:
    runner.check(network(disableCheck=True), ENDPOINT)
    with pytest.raises(Error, match="eth0 of it was not added") as caught:
        runner.check(network(), ENDPOINT)
    assert caught.value.code == UNKNOWN_CONTAINER
    with pytest.raises(Error, match=r"0\.3\.1 has no CHECK") as caught:
        runner.check(network(cniVersion="0.3.1"), ENDPOINT)
    assert caught.value.code == INCOMPATIBLE_VERSION
    assert folder.calls() == []


def test_status_stops_at_the_first_error(runner: Runner, folder: Folder) -> None:
    folder.make("two", STATUS=failure(50, "no addresses", "256 of 256 taken"))
    with pytest.raises(Error) as caught:
        runner.status(network())
    assert (caught.value.code, str(caught.value)) == (50, "two: no addresses (256 of 256 taken)")
    assert folder.calls() == ["STATUS one", "STATUS two"]
    runner.status(network(cniVersion="1.0.0"))
    assert len(folder.calls()) == 2


# GC.


def attach(runner: Runner, *containers: str, name: str = "net") -> None:
    for container in containers:
        runner.add(network(name=name), Endpoint(container, "/nonexistent/netns"))


def test_gc_deletes_what_is_not_valid_then_asks_each_plugin(runner: Runner, folder: Folder) -> None:
    attach(runner, "c1", "c2")
    attach(runner, "c3", name="other")
    before = len(folder.calls())
    runner.gc(network(), [("c2", "eth0"), ("c9", "eth1")])
    assert folder.calls()[before:] == ["DEL three", "DEL two", "DEL one", "GC one", "GC two", "GC three"]
    deleted, collected = folder.told()[before], folder.told()[-1]
    assert (deleted.env["CNI_CONTAINERID"], deleted.env["CNI_NETNS"]) == ("c1", "/nonexistent/netns")
    valid = [{"containerID": "c2", "ifname": "eth0"}, {"containerID": "c9", "ifname": "eth1"}]
    assert collected.conf["cni.dev/valid-attachments"] == collected.conf["cni.dev/attachments"] == valid
    assert collected.env["CNI_CONTAINERID"] == ""
    assert kept(runner) == ["net c2 eth0", "other c3 eth0"]


def test_gc_without_a_list_collects_all(runner: Runner, folder: Folder) -> None:
    attach(runner, "c1", "c2")
    runner.gc(network(), None)
    assert kept(runner) == []
    assert not any(key.startswith("cni.dev/") for key in folder.told()[-1].conf)


def test_gc_takes_what_a_killed_add_left(runner: Runner) -> None:
    attach(runner, "c1")
    left = Path(runner.cache.own, "net c9 eth0")
    left.touch()
    runner.gc(network(), [("c1", "eth0")])
    assert not left.exists()
    assert kept(runner) == ["net c1 eth0"]


def test_gc_of_an_empty_list_says_so(runner: Runner, folder: Folder) -> None:
    runner.gc(network(), [])
    assert folder.told()[-1].conf["cni.dev/valid-attachments"] == []


def test_gc_goes_on_and_joins_errors(runner: Runner, folder: Folder) -> None:
    attach(runner, "c1", "c2")
    folder.make("one", DEL=failure(105, "busy"), GC=failure(109, "broken"))
    folder.make("three", GC=failure(110, "odd"))
    with pytest.raises(Error) as caught:
        runner.gc(network(), [])
    assert str(caught.value) == "one: busy: one: busy; one: broken; three: odd"
    assert folder.calls()[-3:] == ["GC one", "GC two", "GC three"]
    assert kept(runner) == ["net c1 eth0", "net c2 eth0"]


def test_gc_can_be_switched_off_and_old_versions_have_none(runner: Runner, folder: Folder) -> None:
    attach(runner, "c1")
    before = len(folder.calls())
    runner.gc(network(disableGC="true"), [])
    assert len(folder.calls()) == before
    runner.gc(network(cniVersion="1.0.0"), [])
    assert folder.calls()[before:] == ["DEL three", "DEL two", "DEL one"]


# An ADD after an ADD.


def test_what_is_left_of_an_earlier_add_is_undone_first(runner: Runner, folder: Folder) -> None:
    """Its namespace is gone: there was a reboot, or somebody removed it."""
    attach(runner, "c1")
    attach(runner, "c1")
    assert folder.calls() == [
        *("ADD one", "ADD two", "ADD three"),
        *("DEL three", "DEL two", "DEL one"),
        *("ADD one", "ADD two", "ADD three"),
    ]
    assert kept(runner) == ["net c1 eth0"]


def test_what_is_attached_is_refused_and_stays(runner: Runner, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    attach(runner, "c1")
    monkeypatch.setattr(operations, "_is_alive", lambda _: True)
    with pytest.raises(Error, match="eth0 is attached to net already") as caught:
        attach(runner, "c1")
    assert caught.value.code == TAKEN
    assert len(folder.calls()) == 3
    assert kept(runner) == ["net c1 eth0"]


# Validation.


def test_validate_finds_missing_plugins_and_versions(runner: Runner, folder: Folder) -> None:
    folder.make("old", VERSION=failure(4, "unknown CNI_COMMAND: VERSION"))
    found = [str(err) for err in runner.validate(network("one", "nowhere", "old", "bridge"))]
    assert found == [
        f"/plugins/1/type: there is no plugin 'nowhere' (CNI_PATH is {folder.bin}; install the plugin there)",
        "/plugins/2/type: the plugin old does not support version 1.1.0 (it supports 0.1.0)",
    ]


# Several processes.

_PROGRAM = """
import sys
from ocirt_cni.runner import lists
from ocirt_cni.runner.operations import Endpoint, Runner
runner = Runner((sys.argv[1],), sys.argv[2], timeout=60)
network = lists.parse(sys.argv[4].encode(), "a list")
getattr(runner, sys.argv[3])(network, *([[]] if sys.argv[3] == "gc" else [Endpoint(sys.argv[5], "/nonexistent")]))
"""


def process(runner: Runner, verb: str, one: lists.Network, container: str = "") -> subprocess.Popen[str]:
    path = os.pathsep.join(sys.path)
    argv = [sys.executable, "-c", _PROGRAM, runner.path[0], runner.cache.folder, verb, one.data.decode(), container]
    return subprocess.Popen(argv, env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE, text=True)


def ended(*processes: subprocess.Popen[str]) -> None:
    for one in processes:
        _, words = one.communicate(timeout=120)
        assert (one.returncode, words) == (0, "")


# A plugin that says when it begins and ends, and waits for a file in between.
_WAITS = (
    'echo "begin $CNI_COMMAND $CNI_CONTAINERID" >>{log}; while ! [ -e {go} ]; do sleep 0.01; done; '
    'echo "end $CNI_COMMAND $CNI_CONTAINERID" >>{log}; echo {{}}'
)


def wait_for(path: Path, lines: int) -> list[str]:
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        time.sleep(0.01)
    return path.read_text().splitlines()


def wait_for_waiter(runner: Runner) -> None:
    """Until a process waits for a lock of the runner's (proc_locks(5))."""
    file = f":{os.stat(f'{runner.cache.own}/lock').st_ino} "
    while not any("->" in line and file in line for line in Path("/proc/locks").read_text().splitlines()):
        time.sleep(0.01)


def test_containers_are_attached_at_the_same_time(runner: Runner, folder: Folder, tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    folder.make("one", ADD=_WAITS.format(log=log, go=go))
    both = [process(runner, "add", network("one"), container) for container in ("c1", "c2")]
    assert sorted(wait_for(log, 2)) == ["begin ADD c1", "begin ADD c2"]
    go.touch()
    ended(*both)


def test_one_container_is_in_one_operation_at_a_time(runner: Runner, folder: Folder, tmp_path: Path) -> None:
    """Also when the networks are two."""
    log, go = tmp_path / "log", tmp_path / "go"
    folder.make("one", ADD=_WAITS.format(log=log, go=go))
    both = [process(runner, "add", network("one", name=name), "c1") for name in ("a", "b")]
    wait_for(log, 1)
    wait_for_waiter(runner)
    third = process(runner, "add", network("one", name="c"), "c3")
    assert sorted(wait_for(log, 2)) == ["begin ADD c1", "begin ADD c3"]
    go.touch()
    ended(*both, third)
    lines = [line for line in log.read_text().splitlines() if line.endswith("c1")]
    assert lines == ["begin ADD c1", "end ADD c1"] * 2


def test_gc_waits_for_adds_and_adds_for_gc(runner: Runner, folder: Folder, tmp_path: Path) -> None:
    log, go, collected = tmp_path / "log", tmp_path / "go", tmp_path / "collected"
    folder.make("one", ADD=_WAITS.format(log=log, go=go), GC=_WAITS.format(log=log, go=collected))
    add = process(runner, "add", network("one"), "c1")
    wait_for(log, 1)
    gc = process(runner, "gc", network("one"))
    other = process(runner, "gc", network("one", name="other"))  # another network's is free to run
    assert wait_for(log, 2)[-1] == "begin GC "
    collected.touch()
    ended(other)
    collected.unlink()
    wait_for_waiter(runner)
    assert len(log.read_text().splitlines()) == 3
    go.touch()
    ended(add)
    wait_for(log, 5)
    go.unlink()
    late = process(runner, "add", network("one"), "c2")
    wait_for_waiter(runner)
    collected.touch()
    wait_for(log, 7)
    go.touch()
    ended(gc, late)
    assert log.read_text().splitlines() == [
        *("begin ADD c1", "begin GC ", "end GC ", "end ADD c1"),
        *("begin GC ", "end GC ", "begin ADD c2", "end ADD c2"),
    ]
    assert kept(runner) == ["net c2 eth0"]
