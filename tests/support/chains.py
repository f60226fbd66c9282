"""Network plugins as a runtime calls them: executables of whoever wrote them, and lists of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.build import ROOT
from tests.support.runtime import TIMEOUT


@dataclass(frozen=True)
class Answer:
    """What a plugin did: its exit status, the JSON that it printed ({} for nothing), and what it said besides."""

    rc: int
    document: dict[str, Any]
    said: str

    @property
    def code(self) -> int:
        """The error's code; 0 with success, -1 if it failed without one."""
        return int(self.document.get("code", -1)) if self.rc else 0

    def ok(self) -> dict[str, Any]:
        """The result. Raises AssertionError for an error."""
        assert self.rc == 0, f"exit status {self.rc}: {self.document} {self.said}"
        return self.document


class Executables:
    """A directory of plugins, and what every call of them has in its environment."""

    def __init__(self, name: str, directory: Path) -> None:
        """`name`: how tables call it."""
        self.name = name
        self.directory = directory

    @classmethod
    def ours(cls, directory: Path, names: Sequence[str]) -> Executables:
        """Links to build/ocirt, in a directory that is made unless it is there."""
        directory.mkdir(parents=True, exist_ok=True)
        for name in names:
            if not (directory / name).is_symlink():
                (directory / name).symlink_to(ROOT / "build" / "ocirt")
        return cls("ocirt", directory)

    def environment(self, command: str, container: str = "", netns: str | Path = "", ifname: str = "eth0") -> dict[str, str]:
        """The variables of one call."""
        words = {"COMMAND": command, "CONTAINERID": container, "NETNS": str(netns), "IFNAME": ifname, "PATH": str(self.directory)}
        return {f"CNI_{key}": value for key, value in words.items()}

    def call(self, plugin: str, environment: Mapping[str, str], data: bytes) -> Answer:
        """Execute a plugin."""
        done = subprocess.run(
            [str(self.directory / plugin)],
            input=data,
            capture_output=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
            timeout=TIMEOUT,
            check=False,
        )
        said = done.stderr.decode(errors="replace")
        try:
            document = json.loads(done.stdout) if done.stdout.strip() else {}
        except ValueError:
            return Answer(done.returncode, {}, done.stdout.decode(errors="replace") + said)
        return Answer(done.returncode, document if isinstance(document, dict) else {}, said)

    def invoke(
        self,
        conf: Mapping[str, Any],
        command: str,
        container: str = "",
        netns: str | Path = "",
        *,
        ifname: str = "eth0",
        env: Mapping[str, str] | None = None,
    ) -> Answer:
        """One call of the plugin that a configuration names."""
        environment = {**self.environment(command, container, netns, ifname), **(env or {})}
        return self.call(str(conf["type"]), environment, json.dumps(conf).encode())


class Chain:
    """A list of plugins, called as libcni calls them: in order with ADD, from the end with DEL, always with what ADD came to."""

    def __init__(self, executables: Executables, network: str, *plugins: Mapping[str, Any], version: str = "1.0.0") -> None:
        self.executables = executables
        self.network = network
        self.version = version
        self.plugins = plugins
        self.results: dict[tuple[str, str], dict[str, Any]] = {}

    def confs(self, result: Mapping[str, Any] | None = None, **more: Any) -> list[dict[str, Any]]:
        """The configuration of each plugin for one call."""
        common: dict[str, Any] = {"cniVersion": self.version, "name": self.network, **more}
        if result is not None:
            common["prevResult"] = result
        return [{**common, **plugin} for plugin in self.plugins]

    def add(self, container: str, netns: str | Path, ifname: str = "eth0") -> Answer:
        """ADD; the answer of the last plugin, or of the first that fails."""
        result = None
        for index in range(len(self.plugins)):
            answer = self.executables.invoke(self.confs(result)[index], "ADD", container, netns, ifname=ifname)
            if answer.rc:
                return answer
            result = answer.document
        self.results[container, ifname] = result or {}
        return answer

    def delete(self, container: str, netns: str | Path = "", ifname: str = "eth0", *, forgotten: bool = False) -> list[Answer]:
        """DEL; all answers. `forgotten`: without the result of ADD."""
        known = self.results.pop((container, ifname), None)
        confs = self.confs(None if forgotten else known)
        return [self.executables.invoke(conf, "DEL", container, netns, ifname=ifname) for conf in reversed(confs)]

    def check(self, container: str, netns: str | Path, ifname: str = "eth0") -> list[Answer]:
        """CHECK; all answers."""
        confs = self.confs(self.results[container, ifname])
        return [self.executables.invoke(conf, "CHECK", container, netns, ifname=ifname) for conf in confs]

    def collect(self, *valid: tuple[str, str]) -> list[Answer]:
        """GC of all but those attachments; all answers. It takes version 1.1.0."""
        attachments = [{"containerID": container, "ifname": ifname} for container, ifname in valid]
        more: dict[str, Any] = {"cni.dev/valid-attachments": attachments, "cniVersion": "1.1.0"}
        confs = self.confs(**more)
        return [self.executables.invoke(conf, "GC", ifname="") for conf in confs]


def subnet(number: int) -> str:
    """A network for tests: 10.99.N.0/24."""
    return f"10.99.{number}.0/24"


def host_local(*subnets: str, **more: Any) -> dict[str, Any]:
    """IPAM of these networks, one address of each, with a default route of each IP version."""
    versions = {"::/0" if ":" in one else "0.0.0.0/0" for one in subnets}
    return {
        "type": "host-local",
        "ranges": [[{"subnet": one}] for one in subnets],
        "routes": [{"dst": one} for one in sorted(versions)],
        **more,
    }


def bridge(*subnets: str, **more: Any) -> dict[str, Any]:
    """A bridge that is the gateway of these networks, with masquerade."""
    return {"type": "bridge", "bridge": "br0", "isGateway": True, "ipMasq": True, "ipam": host_local(*subnets), **more}


def portmap(*mappings: tuple[int, int, str], **more: Any) -> dict[str, Any]:
    """Published ports: (of the host, of the container, protocol)."""
    ports = [{"hostPort": host, "containerPort": inner, "protocol": protocol} for host, inner, protocol in mappings]
    return {"type": "portmap", "capabilities": {"portMappings": True}, "runtimeConfig": {"portMappings": ports}, **more}
