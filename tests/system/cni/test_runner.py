"""The runner with our plugins and others' in one chain, in this process as a daemon has it, and killed at any moment."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocirt_cni import plugins
from ocirt_cni.call import Call
from ocirt_cni.errors import TAKEN, Error
from ocirt_cni.results import Result
from ocirt_cni.runner import lists
from ocirt_cni.runner.operations import Endpoint, Runner
from tests.support.build import ROOT
from tests.support.networks import Host, addresses, command, link
from tests.support.plugins import Folder, failure
from tests.system.cni.conftest import MakeNetns

BRIDGE: dict[str, Any] = {
    "type": "bridge",
    "bridge": "br0",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]},
}
OTHER = BRIDGE | {"bridge": "br1", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.2.0.0/24"}]]}}
PORTMAP: dict[str, Any] = {"type": "portmap", "capabilities": {"portMappings": True}}
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}


def network(*chain: dict[str, Any], **more: Any) -> lists.Network:
    document = {"cniVersion": "1.1.0", "name": "net", "plugins": list(chain)} | more
    return lists.parse(json.dumps(document).encode(), "a list")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "plugins")


@pytest.fixture
def runner(folder: Folder) -> Runner:
    return Runner((str(folder.bin),), timeout=60)


def test_ours_and_others_in_one_chain(runner: Runner, folder: Folder, netns: MakeNetns, host: Host) -> None:
    """A foreign plugin gets our result, and ours get what it made of it."""
    before = host.traces()
    one, path = network(BRIDGE, {"type": "one"}, PORTMAP), netns()
    # It passes on what it got, as a chained plugin does, with a name server.
    program = "import json, sys; found = json.load(sys.stdin)['prevResult']; found['dns'] = {'nameservers': ['10.1.0.1']}; "
    folder.make("one", ADD=f"""{sys.executable} -I -c "{program} print(json.dumps(found))" <"$call/stdin" """)
    result = runner.add(one, Endpoint("c1", path, capabilities=PORTS))
    assert result.dns.nameservers == ["10.1.0.1"]
    assert {str(ip.address) for ip in result.ips} == addresses("eth0", path)
    runner.check(one, Endpoint("c1", path))
    assert [told.conf["prevResult"]["dns"] for told in folder.told()] == [{}, {"nameservers": ["10.1.0.1"]}]
    runner.gc(one, [("c1", "eth0")])
    runner.check(one, Endpoint("c1", path))
    runner.delete(one, Endpoint("c1", path))
    assert folder.calls() == ["ADD one", "CHECK one", "GC one", "CHECK one", "DEL one"]
    left = {name for name in host.traces() if name not in before}
    assert not [name for name in left if "veth" in name or "10.1.0.2" in name or "c1" in name or "8080" in name]


def test_an_ipam_plugin_of_somebody_else(runner: Runner, folder: Folder, netns: MakeNetns) -> None:
    folder.make("pool", {"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.7/24", "gateway": "10.9.0.1"}]})
    one, path = network(BRIDGE | {"ipam": {"type": "pool", "size": 3}}), netns()
    runner.add(one, Endpoint("c1", path, args=[("K8S_POD_NAME", "pod")]))
    assert addresses("eth0", path) == {"10.9.0.7/24"}
    runner.delete(one, Endpoint("c1", path))
    assert folder.calls() == ["ADD pool", "DEL pool"]
    assert folder.told()[0].conf["ipam"] == {"type": "pool", "size": 3}
    assert {told.env["CNI_ARGS"] for told in folder.told()} == {"K8S_POD_NAME=pod"}


def test_a_failure_behind_ours_takes_all_away(runner: Runner, folder: Folder, netns: MakeNetns, host: Host) -> None:
    folder.make("one", ADD=failure(120, "no"))
    one, path = network(BRIDGE, PORTMAP, {"type": "one"}), netns()
    with pytest.raises(Error, match="one: no"):
        runner.add(one, Endpoint("c1", path, capabilities=PORTS))
    assert link("eth0", path) is None
    left = host.traces()
    assert not [name for name in left if name.startswith("link veth") or "10.1.0.2" in name or "8080" in name]
    assert runner.attachments() == []


def test_lazy_is_passed_on_to_ours(runner: Runner, monkeypatch: pytest.MonkeyPatch, netns: MakeNetns) -> None:
    calls: list[tuple[str, bool]] = []
    real = plugins.invoke

    def invoke(name: str, call: Call) -> Result | None:
        calls.append((call.command, call.lazy))
        return real(name, call)

    monkeypatch.setattr(plugins, "invoke", invoke)
    one, path = network({"type": "loopback"}), netns()
    runner.add(one, Endpoint("c1", path, "lo"))
    runner.delete(one, Endpoint("c1", path, "lo", lazy=True))
    assert calls == [("ADD", False), ("DEL", True)]


def test_many_containers_and_two_networks(runner: Runner, netns: MakeNetns) -> None:
    one, other = network(BRIDGE), network(OTHER, name="other")
    paths = {f"c{number}": netns() for number in range(5)}
    for container, path in paths.items():
        runner.add(one, Endpoint(container, path))
        runner.add(other, Endpoint(container, path, "eth1"))
    assert len({str(ip.address) for entry in runner.attachments(network="net") for ip in (entry.parsed() or Result()).ips}) == 5
    assert [str(entry.attachment) for entry in runner.attachments("c3")] == ["net c3 eth0", "other c3 eth1"]
    runner.gc(one, [("c0", "eth0")])
    assert [entry.attachment.container for entry in runner.attachments(network="net")] == ["c0"]
    for path in list(paths.values())[1:]:
        assert (link("eth0", path), link("eth1", path) is None) == (None, False)
    runner.gc(other, [])
    runner.gc(one, [])
    assert runner.attachments() == []


def test_an_interface_that_is_there_is_left_alone(runner: Runner, netns: MakeNetns) -> None:
    """A second ADD by somebody who knows nothing of the first: with another cache."""
    one, path = network(BRIDGE), netns()
    runner.add(one, Endpoint("c1", path))
    with pytest.raises(Error) as caught:
        runner.add(one, Endpoint("c1", path))
    assert caught.value.code == TAKEN
    assert link("eth0", path) is not None
    runner.delete(one, Endpoint("c1", path))


def test_the_thread_is_back_in_its_namespace(runner: Runner, netns: MakeNetns) -> None:
    before = os.stat("/proc/thread-self/ns/net").st_ino
    one, path = network(BRIDGE, PORTMAP), netns()
    runner.add(one, Endpoint("c1", path, capabilities=PORTS))
    with pytest.raises(Error):
        runner.add(one, Endpoint("c2", "/nonexistent"))
    runner.delete(one, Endpoint("c1", path))
    assert os.stat("/proc/thread-self/ns/net").st_ino == before
    counts = []
    for _ in range(5):
        runner.add(one, Endpoint("c1", path))
        runner.delete(one, Endpoint("c1", path))
        gc.collect()  # some are closed when nobody has them any more
        counts.append(len(os.listdir("/proc/self/fd")))
    assert max(counts[3:]) <= max(counts[:3]), f"descriptors are left open: {counts}"


# kill -9: what is on disk is whole, and DEL takes it away.

_CHANGES = "rename,renameat,renameat2,mkdir,mkdirat,write,pwrite64,unlink,unlinkat,fcntl,vfork,clone,clone3"
_MOST = 60


def killed(place: Path, *args: str, environment: dict[str, str]) -> Iterator[int]:
    """Run `ocirt-cni` again and again, killed before its first, second, … change, until it gets through."""
    env = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"} | environment
    for number in range(1, _MOST):
        inject = f"inject={_CHANGES}:signal=KILL:when={number}"
        line = [
            "strace",
            "-q",
            "-o",
            "/dev/null",
            "-e",
            f"trace={_CHANGES}",
            "-e",
            inject,
            str(ROOT / "build" / "ocirt-cni"),
            *args,
        ]
        done = subprocess.run(line, env=env, capture_output=True, text=True, check=False, timeout=60, cwd=place)
        if done.returncode == 0:
            assert number > 4, "it was never killed"
            return
        assert done.returncode in (-9, 137), done.stderr
        yield number
    pytest.fail(f"it was killed {_MOST} times")


@pytest.mark.parametrize("verb", ["add", "del"])
def test_a_kill_at_any_change_leaves_whole_files_and_del_takes_all(
    verb: str, folder: Folder, runner: Runner, tmp_path: Path, netns: MakeNetns
) -> None:
    folder.make("one", {"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.7/24"}]})
    (tmp_path / "net.conflist").write_text(network({"type": "one"}, {"type": "loopback"}).data.decode())
    path = netns()
    environment = {"NETCONFPATH": str(tmp_path), "CNI_PATH": str(folder.bin), "CNI_IFNAME": "lo"}

    def run(what: str) -> None:
        env = {"PATH": os.environ["PATH"]} | environment
        done = subprocess.run(
            [ROOT / "build" / "ocirt-cni", what, "net", path], env=env, capture_output=True, check=False, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, b"")

    if verb == "del":
        run("add")
    for _ in killed(tmp_path, verb, "net", path, environment=environment):
        files = [file for file in Path("/var/lib/cni/results").glob("*") if file.is_file()]
        assert len(runner.attachments()) == len(files), "a file that is not whole"
        run("del")
        assert runner.attachments() == []
        left = sorted(str(file) for file in Path("/var/lib/cni").rglob("*") if file.is_file())
        assert left == ["/var/lib/cni/ocirt/lock"] or left == []
        if verb == "del":
            run("add")
    run("del")


def test_what_a_killed_process_held_is_free(runner: Runner, folder: Folder, tmp_path: Path, netns: MakeNetns) -> None:
    """A plugin hangs, its runner is killed: the container and the network are free at once."""
    begun = tmp_path / "begun"
    folder.make("one", ADD=f"echo $$ >{begun}; exec sleep 1000")
    (tmp_path / "net.conflist").write_text(network({"type": "one"}).data.decode())
    path = netns()
    env = {"PATH": os.environ["PATH"], "NETCONFPATH": str(tmp_path), "CNI_PATH": str(folder.bin)}
    with subprocess.Popen([ROOT / "build" / "ocirt-cni", "add", "net", path], env=env) as process:
        while not begun.exists() or not begun.read_text():
            command("true")
        process.kill()
    os.kill(int(begun.read_text()), 9)
    folder.make("one")
    runner.gc(network({"type": "one"}), [])
    runner.add(network({"type": "one"}), Endpoint("c1", path))
