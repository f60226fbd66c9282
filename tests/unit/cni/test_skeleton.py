"""A plugin as an executable, but for the process."""

from __future__ import annotations

import json
import posix
from types import SimpleNamespace
from typing import Any

import pytest

from ocirt_cni import files, plugins, skeleton, versions
from ocirt_cni.addresses import Prefix
from ocirt_cni.call import Call
from ocirt_cni.errors import CHECK_FAILED, Error
from ocirt_cni.results import IP, Result

ENVIRONMENT = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/n", "CNI_IFNAME": "eth0"}


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Stands for every plugin; the calls that it got."""
    calls: list[Call] = []

    def add(call: Call) -> Result:
        calls.append(call)
        return Result([], [IP(Prefix.parse("10.1.0.2/24"))])

    def delete(call: Call) -> None:
        calls.append(call)

    def check(call: Call) -> None:
        raise Error(CHECK_FAILED, "it is not up", subject="eth0", hint="bring it up")

    monkeypatch.setattr(plugins, "module", lambda name: SimpleNamespace(add=add, delete=delete, check=check))
    return calls


def run(command: str, conf: Any = None, **environment: str) -> dict[str, Any] | None:
    document = {"cniVersion": "1.1.0", "name": "net", "type": "x", **(conf or {})}
    return skeleton.run("x", {**ENVIRONMENT, "CNI_COMMAND": command, **environment}, json.dumps(document).encode())


def test_add(plugin: list[Call]) -> None:
    assert run("ADD") == {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/24"}], "dns": {}}
    assert plugin[0].container == "c1"


@pytest.mark.parametrize("version", versions.SUPPORTED)
def test_the_result_is_of_the_configuration_s_version(plugin: list[Call], version: str) -> None:
    answer = run("ADD", {"cniVersion": version})
    assert answer is not None
    assert answer["cniVersion"] == version
    assert ("ip4" in answer) == (version < "0.3.0")
    assert len(plugin) == 1


def test_del_prints_nothing(plugin: list[Call]) -> None:
    assert run("DEL", CNI_NETNS="") is None
    assert len(plugin) == 1


@pytest.mark.parametrize("command", ["GC", "STATUS"])
def test_what_a_plugin_does_not_have_succeeds(plugin: list[Call], command: str) -> None:
    assert run(command) is None
    assert plugin == []


def test_an_error(plugin: list[Call]) -> None:
    assert run("CHECK") == {
        "cniVersion": "1.1.0",
        "code": 104,
        "msg": "eth0: it is not up",
        "details": "bring it up",
    }
    assert plugin == []


def test_an_error_before_the_plugin_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "module", None)
    for answer, code in (
        (run("ADD", CNI_NETNS=""), 4),
        (run("ADD", {"cniVersion": "3.0.0"}), 1),
        (run("GC", {"cniVersion": "1.0.0"}), 1),
        (run("ADD", {"name": ""}), 7),
        (run("add"), 4),
        (skeleton.run("x", {"CNI_COMMAND": "ADD"}, b"{"), 6),
        (skeleton.run("x", {"CNI_COMMAND": "ADD"}, b"[]"), 6),
    ):
        assert answer is not None
        assert answer["code"] == code, answer
        assert answer["cniVersion"]


def test_an_error_is_of_the_configuration_s_version() -> None:
    for named, said in (("0.4.0", "0.4.0"), (None, "0.1.0"), ("3.0.0", "3.0.0"), (7, "0.1.0")):
        answer = run("ADD", {"cniVersion": named, "name": ""})
        assert answer is not None
        assert answer["cniVersion"] == said


@pytest.mark.parametrize(
    ("data", "version"),
    [(b"", "1.1.0"), (b"{}", "1.1.0"), (b'{"cniVersion": "0.4.0"}', "0.4.0"), (b'{"cniVersion": "9"}', "1.1.0"), (b"x", "1.1.0")],
)
def test_version(data: bytes, version: str) -> None:
    assert skeleton.run("x", {"CNI_COMMAND": "VERSION"}, data) == {
        "cniVersion": version,
        "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    }


class Streams:
    """Standard input, output and error as pipes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, data: bytes, environment: dict[str, str]) -> None:
        self.written: dict[int, bytes] = {1: b"", 2: b""}
        blocks = [data[start : start + 7] for start in range(0, len(data), 7)]
        monkeypatch.setattr(posix, "read", lambda fd, size: blocks.pop(0) if blocks else b"")
        monkeypatch.setattr(posix, "write", self.write)
        monkeypatch.setattr(files, "environment", lambda: environment)

    def write(self, fd: int, data: bytes) -> int:
        """A pipe may take less than all."""
        self.written[fd] += data[:5]
        return len(data[:5])

    def run(self) -> int:
        """The exit status."""
        with pytest.raises(SystemExit) as caught:
            skeleton.main("x")
        assert isinstance(caught.value.code, int)
        return caught.value.code


def main(monkeypatch: pytest.MonkeyPatch, conf: dict[str, Any], command: str = "ADD") -> tuple[int, dict[str, Any] | None]:
    data = json.dumps({"cniVersion": "1.1.0", "name": "net", **conf}).encode()
    with monkeypatch.context() as patches:
        streams = Streams(patches, data, {**ENVIRONMENT, "CNI_COMMAND": command})
        code = streams.run()
    text = streams.written[1].decode()
    assert streams.written[2] == b""
    assert text.endswith("\n") or not text
    return code, json.loads(text) if text else None


def test_the_process_succeeds(monkeypatch: pytest.MonkeyPatch, plugin: list[Call]) -> None:
    code, answer = main(monkeypatch, {})
    assert (code, answer) == (0, {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/24"}], "dns": {}})
    assert main(monkeypatch, {}, "DEL") == (0, None)
    assert len(plugin) == 2


def test_the_process_fails(monkeypatch: pytest.MonkeyPatch, plugin: list[Call]) -> None:
    code, answer = main(monkeypatch, {}, "CHECK")
    assert code == 1
    assert answer is not None
    assert answer["code"] == 104


def test_a_fault_of_ours_is_json_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def module(name: str) -> Any:
        raise KeyError(name)

    monkeypatch.setattr(plugins, "module", module)
    code, answer = main(monkeypatch, {})
    assert code == 1
    assert answer is not None
    assert (answer["code"], answer["msg"]) == (999, "KeyError: 'x'")


def test_half_a_surrogate_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON may name one, and it has no bytes."""
    result = Result()
    result.dns.domain = "\ud800"
    monkeypatch.setattr(plugins, "module", lambda name: SimpleNamespace(add=lambda call: result))
    assert main(monkeypatch, {}) == (0, {"cniVersion": "1.1.0", "dns": {"domain": "?"}})


def test_without_a_command_it_says_what_it_is(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("CNI_COMMAND", raising=False)
    skeleton.main("bridge")
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == (
        "ocirt's CNI plugin bridge\nCNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"
    )
