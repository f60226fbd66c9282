"""host-local as an executable: beside the reference, from many processes at once, and killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ocirt_cni.call import ADD, DEL, Call
from ocirt_cni.plugins import invoke
from tests.support.isolation import mount, umount
from tests.support.kills import killed_at, of_runtime, trace
from tests.support.networks import command, execute, link
from tests.system.cni.conftest import Invoke, MakeNetns, Plugin

REFERENCE = Path("/usr/lib/cni")  # Debian's containernetworking-plugins
FOLDER = Path("/var/lib/cni/networks/net")
PROCESSES = 8
TURNS = 60


def conf(**ipam: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": "net", "type": "bridge", "ipam": {"type": "host-local", **ipam}}


def leases(folder: Path = FOLDER) -> dict[str, str]:
    names = [name for name in os.listdir(folder) if name.startswith(("10.", "fd"))] if folder.exists() else []
    return {name: (folder / name).read_bytes().decode() for name in names}


def test_a_lease(plugin: Plugin) -> None:
    result = plugin("host-local", conf(ranges=[[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]), netns="/n").ok()
    assert result == {
        "cniVersion": "1.0.0",
        "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}, {"address": "fd00:1::2/64", "gateway": "fd00:1::1"}],
        "dns": {},
    }
    assert leases() == {"10.1.0.2": "c1\r\neth0", "fd00:1::2": "c1\r\neth0"}
    plugin("host-local", conf(ranges=[[{"subnet": "10.1.0.0/24"}]]), "CHECK", netns="/n").ok()
    for _ in range(3):
        assert plugin("host-local", conf(), "DEL").ok() == {}
    assert leases() == {}


def test_status_says_that_there_are_none(plugin: Plugin) -> None:
    config = {**conf(subnet="10.1.0.0/30"), "cniVersion": "1.1.0"}
    plugin("host-local", config, "STATUS").ok()
    plugin("host-local", config, netns="/n").ok()
    assert plugin("host-local", config, "STATUS").failed(50) == (
        "/ipam: no address is free in 10.1.0.1-10.1.0.2: 1 of 1 addresses are taken"
    )
    plugin("host-local", {**config, "cni.dev/valid-attachments": []}, "GC").ok()
    plugin("host-local", config, "STATUS").ok()


@pytest.mark.skipif(not (REFERENCE / "host-local").exists(), reason="the reference plugins are not installed")
def test_a_node_switches_to_us_and_back(plugin: Plugin) -> None:
    """With leases, in both directions, and each works on what the other left."""

    def theirs(command: str, container: str) -> dict[str, Any]:
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": "/n",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(REFERENCE),
        }
        return execute(REFERENCE, "host-local", json.dumps(config).encode(), environment).ok()

    def ours(command: str, container: str) -> dict[str, Any]:
        return plugin("host-local", config, command, netns="/n", container=container).ok()

    def address(result: dict[str, Any]) -> str:
        text: str = result["ips"][0]["address"]
        return text

    config = conf(subnet="10.1.0.0/28")
    assert address(theirs("ADD", "a")) == "10.1.0.2/28"
    assert address(ours("ADD", "b")) == "10.1.0.3/28"
    assert address(theirs("ADD", "c")) == "10.1.0.4/28", "it goes on where we were"
    assert address(ours("ADD", "d")) == "10.1.0.5/28"
    ours("CHECK", "c")
    theirs("CHECK", "d")
    assert "it holds 10.1.0.4 already" in plugin("host-local", config, netns="/n", container="c").failed(102)
    ours("DEL", "a")
    theirs("DEL", "b")
    ours("DEL", "c")
    theirs("DEL", "d")
    assert leases() == {}
    for number in range(30):  # more than there are addresses
        (theirs if number % 3 else ours)("ADD", f"x{number}")
        (ours if number % 2 else theirs)("DEL", f"x{number}")
    assert leases() == {}


def turns(folder: Path, worker: int) -> None:
    """ADD and DEL in this process, which holds 5 addresses at a time. Raises AssertionError if somebody else has one as well."""

    def call(command: str, container: str) -> Any:
        ipam = {"type": "host-local", "dataDir": str(folder), "subnet": "10.1.0.0/26"}
        document = {"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": ipam}
        return invoke("host-local", Call(command, document, container=container, ifname="eth0", netns="/n"))

    for turn in range(TURNS):
        held = {name: str(call(ADD, name).ips[0].address.address) for name in [f"w{worker}-{turn}-{each}" for each in range(5)]}
        for name, address in held.items():
            assert (folder / "net" / address).read_bytes().decode() == f"{name}\r\neth0"
            call(DEL, name)


def test_many_processes_at_once(tmp_path: Path) -> None:
    """8 processes hold 40 of 61 addresses at a time."""
    started = []
    for worker in range(PROCESSES):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                turns(tmp_path, worker)
                code = 0
            finally:
                os._exit(code)
        started.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in started] == [0] * PROCESSES
    assert leases(tmp_path / "net") == {}
    assert os.listdir(tmp_path / "net/.ocirt/of") == []


def test_executables_at_once(plugin_path: Path) -> None:
    """All addresses of a range go to as many processes, each once; one more is refused."""
    document = json.dumps(conf(subnet="10.1.0.0/27")).encode()

    def start(number: int) -> subprocess.Popen[bytes]:
        environment = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": f"c{number}",
            "CNI_NETNS": "/n",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(plugin_path),
        }
        process = subprocess.Popen(
            [plugin_path / "host-local"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdin is not None
        process.stdin.write(document)
        process.stdin.close()
        process.stdin = None
        return process

    answers = [json.loads(process.communicate(timeout=120)[0]) for process in [start(number) for number in range(30)]]
    given = [answer["ips"][0]["address"] for answer in answers if "ips" in answer]
    refused = [answer for answer in answers if "ips" not in answer]
    assert sorted(given) == sorted(f"10.1.0.{number}/27" for number in range(2, 31))
    assert [(answer["code"], answer["msg"]) for answer in refused] == [
        (101, "/ipam: no address is free in 10.1.0.1-10.1.0.30: 29 of 29 addresses are taken")
    ]


def driver(folder: Path, plugin_path: Path, command: str) -> list[str]:
    """The command line of one call, for strace: environment and input as arguments."""
    document = json.dumps(
        conf(ranges=[[{"subnet": "10.1.0.0/28"}], [{"subnet": "fd00:1::/64"}]], dataDir=str(folder / "networks"))
    )
    (folder / "input").write_text(document)
    environment = [f"CNI_COMMAND={command}", "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS=/n", f"CNI_PATH={plugin_path}"]
    return ["env", *environment, "sh", "-c", f"exec {plugin_path}/host-local <{folder}/input"]


@pytest.mark.parametrize(("killed", "before"), [("ADD", ()), ("ADD", ("ADD", "DEL")), ("DEL", ("ADD",))])
def test_killed_at_every_change(killed: str, before: tuple[str, ...], tmp_path: Path, plugin_path: Path) -> None:
    """Then DEL, and there is no lease; nor does the kill cost an address. `before`: what was done on the network already."""

    def run(command: str) -> None:
        done = subprocess.run(driver(tmp_path, plugin_path, command), capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout

    saved = tmp_path / "saved"
    for one in before:
        run(one)
    (tmp_path / "networks").mkdir(exist_ok=True)
    shutil.copytree(tmp_path / "networks", saved, symlinks=True)
    argv = driver(tmp_path, plugin_path, killed)
    points = of_runtime(trace(argv, tmp_path / "log"), f"{tmp_path}/networks/net/lock")
    assert len(points) > (8 if killed == "ADD" else 4), points
    reached = 0
    for point in points:
        shutil.rmtree(tmp_path / "networks")
        shutil.copytree(saved, tmp_path / "networks", symlinks=True)
        death = killed_at(argv, point)
        reached += death.code < 0 or death.code == 137
        folder = tmp_path / "networks/net"
        for text in leases(folder).values():
            assert text == "c1\r\neth0", f"{point}: a lease of nobody"
        run("DEL")
        assert leases(folder) == {}, point
        assert not (folder / ".ocirt/of").exists() or os.listdir(folder / ".ocirt/of") == [], point
        run("ADD")
        assert len(leases(folder)) == 2, point
        run("DEL")
    assert reached == len(points)


def test_a_kill_costs_no_address(tmp_path: Path, plugin_path: Path) -> None:
    """Each address of a /28 can be had after an ADD was killed once for each of its changes, without a DEL, and GC."""
    argv = driver(tmp_path, plugin_path, "ADD")
    points = of_runtime(trace(argv, tmp_path / "log"), f"{tmp_path}/networks/net/lock")
    for number, point in enumerate(points):
        killed_at([text.replace("=c1", f"=k{number}") for text in argv], point)

    def call(command: str, container: str = "") -> Any:
        ipam = {"type": "host-local", "dataDir": str(tmp_path / "networks"), "subnet": "10.1.0.0/28"}
        options: dict[str, Any] = {"container": container, "ifname": "eth0", "netns": "/n"} if container else {}
        document = {"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": ipam}
        return invoke("host-local", Call(command, document, **options))

    call("GC")
    assert leases(tmp_path / "networks/net") == {}
    assert len({str(call(ADD, f"n{number}").ips[0].address) for number in range(13)}) == 13


def test_what_an_executable_loads(plugin_path: Path) -> None:
    """None of the modules that cost milliseconds."""
    code = (
        "import sys; sys.path.insert(0, 'cni'); from ocirt_cni import skeleton, plugins; plugins.module('host-local');"
        "print(*sorted(sys.modules))"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True, cwd=root)
    loaded = set(done.stdout.split())
    heavy = {
        "re",
        "typing",
        "dataclasses",
        "enum",
        "json",
        "pathlib",
        "ipaddress",
        "subprocess",
        "argparse",
        "logging",
        "hashlib",
    }
    assert not loaded & heavy


def test_addresses_wait_for_the_links_of_a_bridge(invoke: Invoke, netns: MakeNetns) -> None:
    """In process, with namespaces that are dropped behind DEL: more turns than there are addresses, and as fast as they go."""
    config = {
        "bridge": "br0",
        "isGateway": True,
        "ipam": {"type": "host-local", "subnet": "10.1.0.0/29", "dataDir": str(FOLDER.parent)},
    }
    links: dict[str, str] = {}
    for turn in range(40):
        path = netns()
        result = invoke("bridge", config, netns=path, container=f"c{turn}")
        assert result is not None
        address = str(result.ips[0].address.address)
        assert link(links.get(address, "none")) is None, "the address is given while the link of who had it is there"
        links[address] = next(one.name for one in result.interfaces if one.name.startswith("veth"))
        invoke("bridge", config, "DEL", netns=path, container=f"c{turn}", lazy=True)
        command("umount", path)
    assert len(links) == 5
    assert leases() == {}


@pytest.mark.parametrize("limit", ["size=64k", "nr_inodes=24"])
def test_a_full_disk(plugin: Plugin, tmp_path: Path, limit: str) -> None:
    """ADD fails and leaves nothing, DEL frees all the same, and then there is room again."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount("tmpfs", str(folder), "tmpfs", 0, limit)
    try:
        config = conf(ranges=[[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]], dataDir=str(folder))
        held = []
        for number in range(100):
            done = plugin("host-local", config, netns="/n", container=f"c{number}")
            if done.rc:
                break
            held.append(f"c{number}")
        assert "No space left on device" in done.failed(5)
        assert sorted(set(leases(folder / "net").values())) == sorted(f"{name}\r\neth0" for name in held)
        assert sorted(os.listdir(folder / "net/.ocirt/of")) == sorted(f"{name}:eth0" for name in held)
        for name in held:
            plugin("host-local", config, "DEL", container=name).ok()
        assert leases(folder / "net") == {}
        plugin("host-local", config, netns="/n").ok()
    finally:
        umount(str(folder))
