"""What an executable loads: a few modules of the standard library, and ours from one file."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.system.cni.conftest import MakeNetns, Plugin

IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}
CONF: dict[str, dict[str, Any]] = {
    "bridge": {"isDefaultGateway": True, "ipMasq": True, "macspoofchk": True, "ipam": IPAM},
    "ptp": {"ipMasq": True, "ipam": IPAM},
    "host-local": {"ipam": IPAM},
    "loopback": {},
    "portmap": {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}},
}
RESULT = {"interfaces": [{"name": "eth0", "sandbox": "/n"}], "ips": [{"address": "10.1.0.2/24", "interface": 0}]}
# Each takes milliseconds, of which a whole ADD has some twenty.
HEAVY = {
    *(
        "argparse",
        "collections",
        "contextlib",
        "ctypes",
        "dataclasses",
        "enum",
        "functools",
        "inspect",
        "ipaddress",
        "json",
        "logging",
    ),
    *("pathlib", "re", "selectors", "signal", "socket", "subprocess", "tempfile", "threading", "typing", "uuid"),
}


@pytest.mark.parametrize("command", ["ADD", "DEL"])
@pytest.mark.parametrize("name", sorted(CONF))
def test_an_executable_loads_little(plugin_path: Path, netns: MakeNetns, tmp_path: Path, name: str, command: str) -> None:
    strace = shutil.which("strace")
    assert strace is not None, "apt-get install strace"
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "c1",
        "CNI_IFNAME": "lo" if name == "loopback" else "eth0",
        "CNI_NETNS": netns(),
        "CNI_PATH": str(plugin_path),
    }
    conf = {"cniVersion": "1.1.0", "name": "net", "type": name, **CONF[name]}
    if name == "portmap":
        conf["prevResult"] = {"cniVersion": "1.1.0", **RESULT}
    trace = tmp_path / "trace"
    done = subprocess.run(
        [strace, "-f", "-qq", "-e", "trace=open,openat,pread64", "-o", trace, plugin_path / name],
        input=json.dumps(conf),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    opened: list[str] = re.findall(r'open(?:at)?\((?:[^"]*)"([^"]*)"[^=]*= \d', trace.read_text())
    assert any(one.endswith(".archive") and "/ocirt_cni/" in one for one in opened)
    assert [one for one in opened if one.endswith((".pyc", ".py")) and "/ocirt" in one] == []
    names = {re.sub(r".*/python3[^/]*/|__pycache__/|\.cpython.*|\.py$", "", one) for one in opened if ".py" in one}
    loaded = {one.removesuffix("/__init__") for one in names}
    assert "encodings" in loaded
    assert loaded & HEAVY == set()
    # `main` and its package, then all that the call is known to need at once, or in two parts; and perhaps what makes tables and
    # chains: the tables' messages, and the compiler.
    fd, rest = re.split(r'/ocirt_cni\.[^"]*\.archive", [^=]*= (\d+)', trace.read_text())[1:]
    assert rest.count(f"pread64({fd},") in (3, 4, 5)


def test_no_socket_outlives_an_executable(plugin: Plugin, netns: MakeNetns) -> None:
    """DEL leaves its socket to nf_tables for the kernel to collect, as to close it would take as long as all the rest."""

    def open_sockets() -> list[str]:
        rows = [line.split() for line in Path("/proc/net/netlink").read_text().splitlines()[1:]]
        return [row[0] for row in rows if row[1] == "12" and row[2] != "0"]  # NETLINK_NETFILTER, but for the kernel's own

    before = open_sockets()
    for number in range(10):
        plugin("ptp", CONF["ptp"], netns=netns(), container=f"c{number}").ok()
        plugin("ptp", CONF["ptp"], "DEL", container=f"c{number}").ok()
    deadline = time.monotonic() + 10
    while open_sockets() != before:
        assert time.monotonic() < deadline, open_sockets()
        time.sleep(0.01)
