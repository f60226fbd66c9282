"""`ocirt-cni` as cnitool's users know it, and what it has beyond: on a real kernel, with our plugins and others'."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocirt_cni.plugins import PLUGINS
from tests.support.build import ROOT
from tests.support.networks import Host, addresses, command, link, ruleset
from tests.support.plugins import Folder, failure
from tests.system.cni.conftest import MakeNetns

COMMAND = ROOT / "build" / "ocirt-cni"
IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
BRIDGE = {"type": "bridge", "bridge": "br0", "isGateway": True, "ipMasq": True, "ipam": IPAM}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]


class Tool:
    """The command, with a configuration folder of its own."""

    def __init__(self, place: Path) -> None:
        self.folder = place / "net.d"
        self.folder.mkdir()

    def network(self, *plugins: dict[str, Any], name: str = "net", file: str = "10-net.conflist", **more: Any) -> Path:
        path = self.folder / file
        path.write_text(json.dumps({"cniVersion": "1.1.0", "name": name, "plugins": list(plugins)} | more))
        return path

    def __call__(self, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "NETCONFPATH": str(self.folder)} | environment
        line = [str(COMMAND), *args]
        return subprocess.run(line, env=env, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)

    def ok(self, *args: str, **environment: str) -> str:
        done = self(*args, **environment)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def fails(self, *args: str, code: int = 1, **environment: str) -> str:
        done = self(*args, **environment)
        assert (done.returncode, done.stdout) == (code, ""), done
        assert done.stderr.startswith("ocirt-cni: ")
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr.removeprefix("ocirt-cni: ").rstrip("\n")


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    return Tool(tmp_path)


def container(netns: str) -> str:
    """The name that cnitool gives to a namespace's container."""
    return f"cnitool-{hashlib.sha512(netns.encode()).hexdigest()[:20]}"


def cached() -> list[str]:
    folder = Path("/var/lib/cni/results")
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_a_network_from_attachment_to_detachment(tool: Tool, netns: MakeNetns, host: Host) -> None:
    tool.network(BRIDGE, PORTMAP)
    path = netns()
    tool.ok("status", "net")
    text = tool.ok("add", "net", path, CAP_ARGS=json.dumps({"portMappings": PORTS}))
    result = json.loads(text)
    assert text.startswith('{\n    "cniVersion": "1.1.0"')
    assert [one["name"] for one in result["interfaces"]][-1] == "eth0"
    address = result["ips"][0]["address"]
    assert addresses("eth0", path) == {address}
    assert cached() == [f"net-{container(path)}-eth0"]
    assert "8080" in ruleset()
    tool.ok("check", "net", path)
    shown = json.loads(tool.ok("show", "--json"))["attachments"]
    assert [(one["network"], one["container"], one["interface"], one["addresses"], one["ports"]) for one in shown] == [
        ("net", container(path), "eth0", [address], ["tcp 8080 -> 80"])
    ]
    assert {one["plugin"] for one in shown[0]["rules"]} == {"bridge", "portmap"}
    rule = next(line for line in tool.ok("show", "net").splitlines() if "portmap: publish tcp" in line)
    assert rule.endswith(f"8080 -> {address.partition('/')[0]}:80")
    assert tool.ok("show", "other") == ""
    tool.ok("del", "net", path)
    assert cached() == []
    assert link("eth0", path) is None
    assert "8080" not in ruleset()
    assert tool.ok("show") == ""
    tool.ok("del", "net", path)


def test_the_environment_is_cnitools(tool: Tool, netns: MakeNetns, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "plugins")
    folder.make("one")
    tool.network({"type": "one", "capabilities": {"mac": True, "aliases": False}})
    path = netns()
    more = {
        "CNI_PATH": f"/nonexistent:{folder.bin}",
        "CNI_ARGS": "A=1;B=2",
        "CAP_ARGS": '{"mac": "02:00:00:00:00:01", "aliases": ["x"]}',
        "CNI_IFNAME": "net7",
    }
    assert json.loads(tool.ok("add", "net", path, **more)) == {"cniVersion": "1.1.0", "dns": {}}
    (told,) = folder.told()
    assert told.conf["runtimeConfig"] == {"mac": "02:00:00:00:00:01"}
    names = {"CNI_ARGS": "A=1;B=2", "CNI_IFNAME": "net7", "CNI_NETNS": path, "CNI_CONTAINERID": container(path)}
    assert {name: told.env[name] for name in names} == names
    tool.ok("-i", "eth5", "add", "net", path, **more)
    assert folder.told()[1].env["CNI_IFNAME"] == "eth5"


def test_a_namespace_may_be_named_from_here(tool: Tool, netns: MakeNetns, monkeypatch: pytest.MonkeyPatch) -> None:
    """The container's name is made of the absolute path, without looking at what is there."""
    tool.network({"type": "loopback"})
    path = netns()
    monkeypatch.chdir(Path(path).parent)
    tool.ok("add", "net", f"./{Path(path).name}", CNI_IFNAME="lo")
    assert cached() == [f"net-{container(path)}-lo"]
    tool.ok("del", "net", path, CNI_IFNAME="lo")
    assert cached() == []


def test_a_plugins_failure_is_one_line_and_leaves_nothing(tool: Tool, netns: MakeNetns, tmp_path: Path, host: Host) -> None:
    folder = Folder(tmp_path / "plugins")
    folder.make("one", ADD="echo more >&2; " + failure(111, "no luck", "try again"))
    tool.network(BRIDGE, {"type": "one"})
    path = netns()
    assert tool.fails("add", "net", path, CNI_PATH=str(folder.bin)) == "one: no luck: more (try again)"
    assert folder.calls() == ["ADD one", "DEL one"]
    assert link("eth0", path) is None
    assert not [name for name in host.traces() if name.startswith("link veth") or ("10.1.0" in name and "networks" in name)]
    assert cached() == []


def test_what_is_attached_cannot_be_attached_again(tool: Tool, netns: MakeNetns) -> None:
    tool.network(BRIDGE)
    path = netns()
    tool.ok("add", "net", path)
    before = addresses("eth0", path)
    assert tool.fails("add", "net", path) == f"{container(path)}: eth0 is attached to net already (delete it first)"
    assert addresses("eth0", path) == before
    tool.ok("check", "net", path)
    tool.ok("del", "net", path)


def test_after_a_reboot_it_can_be_attached_again(tool: Tool, netns: MakeNetns) -> None:
    """The namespace is another one of the same name; files are as they were."""
    tool.network(BRIDGE)
    path = netns()
    tool.ok("add", "net", path)
    command("ip", "netns", "del", Path(path).name)
    command("ip", "netns", "add", Path(path).name)
    tool.ok("add", "net", path)
    assert len(addresses("eth0", path)) == 1
    tool.ok("del", "net", path)


def test_del_works_when_namespace_file_and_network_are_gone(tool: Tool, netns: MakeNetns) -> None:
    file = tool.network(BRIDGE, PORTMAP)
    path = netns()
    tool.ok("add", "net", path, CAP_ARGS=json.dumps({"portMappings": PORTS}))
    command("ip", "netns", "del", Path(path).name)
    file.unlink()
    assert "(gone)" in tool.ok("show")
    tool.ok("del", "net", path)
    assert cached() == []
    assert "8080" not in ruleset()
    assert "there are no networks" in tool.fails("del", "net", path)


def test_gc(tool: Tool, netns: MakeNetns) -> None:
    tool.network(BRIDGE)
    first, second, third = netns(), netns(), netns()
    for path in (first, second, third):
        tool.ok("add", "net", path)
    command("ip", "netns", "del", Path(first).name)
    tool.ok("gc", "net", "--keep-live")
    assert cached() == sorted(f"net-{container(path)}-eth0" for path in (second, third))
    tool.ok("gc", "net", "--keep", f"{container(second)}/eth0")
    assert cached() == [f"net-{container(second)}-eth0"]
    assert link("eth0", third) is None
    assert "--keep: 'x' is no attachment" in tool.fails("gc", "net", "--keep", "x")
    tool.ok("gc", "net", second)  # as cnitool: all of it
    assert cached() == []


def test_status_has_the_plugins_words(tool: Tool, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "plugins")
    folder.make("one", STATUS=failure(50, "not yet"))
    tool.network({"type": "one"})
    assert tool.fails("status", "net", "/x", CNI_PATH=str(folder.bin)) == "one: not yet"


def test_an_interrupt_undoes(tool: Tool, netns: MakeNetns, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "plugins")
    begun = tmp_path / "begun"
    folder.make("one", ADD=f"touch {begun}; sleep 1000")
    tool.network(BRIDGE, {"type": "one"})
    path = netns()
    env = {"PATH": os.environ["PATH"], "NETCONFPATH": str(tool.folder), "CNI_PATH": str(folder.bin)}
    with subprocess.Popen([COMMAND, "add", "net", path], env=env, stderr=subprocess.PIPE, text=True) as process:
        while not begun.exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=60)
    assert (process.returncode, words) == (130, "")
    assert folder.calls() == ["ADD one", "DEL one"]
    assert link("eth0", path) is None


# Mistakes.


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["ad"], 3, "there is no verb 'ad' (did you mean add?)"),
        (["list-networks"], 3, "there is no verb 'list-networks'"),
        (["zzz"], 3, "there is no verb 'zzz' (see ocirt-cni --help)"),
        (["add", "net"], 1, "add takes <network> <netns> (see ocirt-cni add --help)"),
        (["list", "x"], 1, "list takes no arguments"),
        (["list", "--jsn"], 1, "there is no flag --jsn (did you mean --json?)"),
        (["list", "--json=1"], 1, "--json takes no value"),
        (["add", "net", "/x", "-i"], 1, "--ifname needs a value"),
        (["plugins", "instal", "/x"], 1, "plugins: there is no verb 'instal' (did you mean install?)"),
        (["plugins", "install"], 1, "plugins install takes a folder"),
        (["plugins", "install", "/nonexistent"], 1, "/nonexistent: there is no such folder"),
        (["plugins", "install", "/x", "brigde"], 1, "there is no plugin 'brigde' (did you mean bridge?)"),
        (["completion", "bsh"], 1, "there is none for bsh (did you mean bash?)"),
        (["add", "nowhere", "/x"], 1, "there are no networks"),
        (["add", "net", "/x", "--config-dir", "/nonexistent"], 1, "/nonexistent: there are no networks"),
    ],
)
def test_a_mistake_is_one_line_with_a_hint(tool: Tool, args: list[str], code: int, words: str) -> None:
    assert words in tool.fails(*args, code=code)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"CNI_ARGS": "A"}, "CNI_ARGS: 'A' is not KEY=VALUE"),
        ({"CAP_ARGS": "{"}, "CAP_ARGS: line 1"),
        ({"CAP_ARGS": "[]"}, "CAP_ARGS: this is not an object"),
        ({"CNI_IFNAME": "a/b"}, "CNI_IFNAME: 'a/b' cannot be the name of an interface"),
    ],
)
def test_a_bad_environment_is_named(tool: Tool, environment: dict[str, Any], words: str) -> None:
    tool.network({"type": "loopback"})
    assert words in tool.fails("add", "net", "/nonexistent", **environment)
    assert cached() == []


def test_help_for_each_verb(tool: Tool) -> None:
    text = tool.ok("--help")
    assert tool.ok() == tool.ok("help") == text
    for line in text.partition("VERBS:\n")[2].partition("\n\n")[0].splitlines():
        verb = line.split()[0]
        assert f"ocirt-cni {verb}" in tool.ok(verb, "--help") or verb == "dhcp"
    assert tool.ok("help", "add") == tool.ok("add", "-h")
    assert "CNI protocol versions supported: 0.1.0" in tool.ok("--version")


def test_the_manual_page_has_all_and_no_mistake(tool: Tool) -> None:
    page = tool.ok("manual")
    line = ["groff", "-man", "-Tascii", "-P-cbou", "-ww", "-z"]
    done = subprocess.run(line, input=page, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    text = subprocess.run([*line[:4]], input=page, capture_output=True, text=True, check=True).stdout
    for word in ("check-config", "--keep-live", "NETCONFPATH", "--cache-dir value", "/var/lib/cni/results"):
        assert word in text


def test_list(tool: Tool) -> None:
    tool.network(BRIDGE, PORTMAP)
    tool.network({"type": "loopback"}, file="20-other.conflist", name="other")
    tool.network({"type": "loopback"}, file="30-net.conflist")
    lines = tool.ok("list").splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["NETWORK", "CNI", "PLUGINS"],
        ["net", "1.1.0", "bridge"],
        ["other", "1.1.0", "loopback"],
        ["net", "1.1.0", "loopback"],
    ]
    assert "hidden" in lines[3]
    (tool.folder / "40.conf").write_text("{")
    done = tool("list", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert [one["hidden"] for one in found["networks"]] == [False, False, True]
    assert found["errors"] == [f"{tool.folder}/40.conf: line 1, column 2: expecting property name enclosed in double quotes"]


def test_reload_brings_rules_back(tool: Tool, netns: MakeNetns) -> None:
    tool.network(BRIDGE, PORTMAP)
    path = netns()
    tool.ok("add", "net", path, CAP_ARGS=json.dumps({"portMappings": PORTS}))
    before = sorted(ruleset().splitlines())  # chains may come in another order
    command("nft", "flush", "ruleset")
    tool.ok("reload")
    assert sorted(ruleset().splitlines()) == before
    tool.ok("del", "net", path)


# The executables.


def run_plugin(path: Path, **environment: str) -> str:
    env = {"PATH": os.environ["PATH"], "CNI_COMMAND": "VERSION"} | environment
    return subprocess.run([path], env=env, input="{}", capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("copy", [False, True])
def test_plugins_are_installed_used_in_process_and_removed(
    tool: Tool, netns: MakeNetns, tmp_path: Path, copy: bool, make_strace: Callable[..., str]
) -> None:
    """Nothing is executed by `add` though CNI_PATH has all executables."""
    folder = tmp_path / "bin"
    folder.mkdir()
    flags = ["--copy"] if copy else []
    assert f"{len(PLUGINS)} plugins in {folder} are" in tool.ok("plugins", "install", *flags, str(folder))
    tool.ok("plugins", "install", *flags, str(folder))  # again
    assert {path.name for path in folder.iterdir()} == {*PLUGINS, *(["ocirt-python"] if copy else [])}
    assert "1.1.0" in run_plugin(folder / "bridge")
    listed = json.loads(tool.ok("plugins", "list", str(folder), "--json"))
    assert {one["whose"] for one in listed} == {"ours"}
    tool.network(BRIDGE, PORTMAP)
    path = netns()
    executed = make_strace(["add", "net", path], NETCONFPATH=str(tool.folder), CNI_PATH=str(folder))
    assert str(folder) not in executed
    tool.ok("del", "net", path, CNI_PATH=str(folder))
    assert f"{len(PLUGINS)} plugins removed" in tool.ok("plugins", "remove", str(folder))
    assert list(folder.iterdir()) == []


@pytest.fixture
def make_strace(tmp_path: Path) -> Callable[..., str]:
    """Run the command under strace: the lines of its execve."""

    def run(args: list[str], **environment: str) -> str:
        log = tmp_path / "strace"
        env = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"} | environment
        line = ["strace", "-f", "-e", "trace=execve,execveat", "-o", str(log), str(COMMAND), *args]
        done = subprocess.run(line, env=env, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return log.read_text()

    return run


def test_foreign_executables_are_kept_or_replaced_by_force(tool: Tool, tmp_path: Path) -> None:
    """Nothing is changed if one is in the way. Ours of another release, and links to one that is gone, give way."""
    folder = tmp_path / "bin"
    folder.mkdir()
    shutil.copy("/bin/true", folder / "bridge")
    (folder / "ptp").symlink_to("/gone/ocirt")
    (folder / "tap").symlink_to("/gone/tap")
    (folder / "calico").write_text("x")
    assert "not ours: bridge, tap (--force" in tool.fails("plugins", "install", str(folder))
    assert {path.name for path in folder.iterdir()} == {"bridge", "ptp", "tap", "calico"}
    tool.ok("plugins", "install", str(folder), "ptp", "portmap")
    assert "foreign" in next(line for line in tool.ok("plugins", "list", str(folder)).splitlines() if line.startswith("bridge"))
    assert (folder / "bridge").read_bytes() == Path("/bin/true").read_bytes()
    tool.ok("plugins", "install", "--force", str(folder))
    assert (folder / "bridge").resolve() == ROOT / "build" / "ocirt"
    old = (ROOT / "build" / "ocirt").read_bytes() + b"of another release"
    (folder / "vlan").unlink()
    (folder / "vlan").write_bytes(old)
    tool.ok("plugins", "install", str(folder))
    assert (folder / "vlan").is_symlink()
    tool.ok("plugins", "remove", str(folder))
    assert [path.name for path in folder.iterdir()] == ["calico"]


def test_a_replaced_plugin_is_executed(tool: Tool, netns: MakeNetns, tmp_path: Path) -> None:
    """What somebody put in our place is theirs."""
    folder = Folder(tmp_path / "plugins")
    tool.ok("plugins", "install", str(folder.bin))
    (folder.bin / "loopback").unlink()
    folder.make("loopback")
    tool.network({"type": "loopback"})
    tool.ok("add", "net", netns(), CNI_PATH=str(folder.bin))
    assert folder.calls() == ["ADD loopback"]


def test_the_three_minutes_of_the_page(tool: Tool, tmp_path: Path) -> None:
    """docs/networks.md, as it stands there, but for the folder of networks and the program for ping."""
    page = (ROOT / "docs" / "networks.md").read_text().partition("## In three minutes")[2].partition("\n## ")[0]
    blocks = "\n\n".join(part for part in page.split("\n\n") if part.startswith("    ")).split("\n\n")
    script = textwrap.dedent(blocks[0]).replace("/etc/cni/net.d", str(tool.folder)).replace(" ping -c", " busybox ping -c")
    (tmp_path / "ocirt-cni").symlink_to(COMMAND)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}:/usr/sbin:/sbin", "NETCONFPATH": str(tool.folder)}
    done = subprocess.run(["sh", "-exc", script], env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert cached() == []
    said = re.sub(r"veth\w+|cnitool-\w+", "X", done.stdout)
    for line in textwrap.dedent(blocks[1]).splitlines():
        assert re.sub(r"veth\w+|cnitool-\w+", "X", line) in said, said


def test_completion_of_each_shell_is_taken_by_the_shell(tool: Tool, tmp_path: Path) -> None:
    for shell, check in (("bash", ["bash", "-n"]), ("fish", ["fish", "-n"]), ("zsh", ["zsh", "-n"])):
        if shutil.which(shell) is None:
            pytest.fail(f"{shell} is not there: run `make test`")
        file = tmp_path / shell
        file.write_text(tool.ok("completion", shell))
        subprocess.run([*check, file], check=True)
    script = f"source {tmp_path / 'bash'}; COMP_WORDS=(ocirt-cni pl); COMP_CWORD=1; _ocirt_cni; echo ${{COMPREPLY[*]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "plugins\n"
