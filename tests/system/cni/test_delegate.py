"""IPAM plugins that others wrote, asked by a plugin of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ocirt_cni.call import ADD, DEL, GC, STATUS, Call
from ocirt_cni.errors import INVALID_CONFIG, Error
from ocirt_cni.ipam import delegate

ANSWERS = {
    "VERSION": '{"cniVersion": "1.1.0", "supportedVersions": %s}',
    "ADD": '{"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.2/24"}], "dns": {}}',
}


class Foreign:
    """An executable that writes down what it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer()

    def answer(self, add: str = ANSWERS["ADD"], versions: tuple[str, ...] = ("1.0.0", "1.1.0")) -> None:
        """What it prints for ADD, and the versions that it supports."""
        program = self.path / "foreign"
        program.write_text(
            "#!/bin/sh\n"
            f'[ "$CNI_COMMAND" = VERSION ] || echo "$CNI_COMMAND $CNI_CONTAINERID" >>{self.path}/log\n'
            f"cat >{self.path}/input\n"
            'case "$CNI_COMMAND" in\n'
            f"VERSION) echo '{ANSWERS['VERSION'] % json.dumps(versions)}';;\n"
            f"ADD) echo '{add}';;\n"
            "esac\n"
        )
        program.chmod(0o755)

    def asked(self) -> list[str]:
        log = self.path / "log"
        return log.read_text().splitlines() if log.exists() else []

    def call(self, command: str, kind: str = "foreign", version: str = "1.1.0") -> Call:
        conf: dict[str, Any] = {"cniVersion": version, "name": "net", "type": "bridge", "ipam": {"type": kind, "anything": 1}}
        options = {"container": "c1", "netns": "/n", "ifname": "eth0"} if command in (ADD, DEL) else {}
        return Call(command, conf, path=(str(self.path),), **options)  # type: ignore[arg-type]


@pytest.fixture
def foreign(tmp_path: Path) -> Foreign:
    return Foreign(tmp_path)


def test_it_is_executed(foreign: Foreign) -> None:
    result = delegate.add(foreign.call(ADD))
    assert [str(ip.address) for ip in result.ips] == ["10.9.0.2/24"]
    assert json.loads((foreign.path / "input").read_text())["ipam"] == {"type": "foreign", "anything": 1}
    delegate.delete(foreign.call(ADD))
    assert foreign.asked() == ["ADD c1", "DEL c1"]


def test_a_result_without_addresses_is_given_back(foreign: Foreign) -> None:
    foreign.answer(add='{"cniVersion": "1.0.0", "dns": {}}')
    with pytest.raises(Error) as caught:
        delegate.add(foreign.call(ADD))
    assert (caught.value.code, caught.value.subject) == (INVALID_CONFIG, "/ipam/type")
    assert foreign.asked() == ["ADD c1", "DEL c1"]


@pytest.mark.parametrize("command", [GC, STATUS])
def test_one_of_a_time_before_gc_and_status_is_left_alone(foreign: Foreign, command: str) -> None:
    """It would ask for a container, and no node with it would ever be ready."""
    ask = {GC: delegate.gc, STATUS: delegate.status}[command]
    foreign.answer(versions=("0.4.0", "1.0.0"))
    ask(foreign.call(command))
    assert foreign.asked() == []
    foreign.answer()
    ask(foreign.call(command))
    assert foreign.asked() == [f"{command} "]


def test_one_that_is_nowhere(foreign: Foreign) -> None:
    for ask, command in ((delegate.add, ADD), (delegate.status, STATUS)):
        with pytest.raises(Error, match="there is no plugin 'none'"):
            ask(foreign.call(command, "none"))


def test_without_one_nothing_is_asked(foreign: Foreign) -> None:
    call = foreign.call(DEL, "")
    delegate.delete(call)
    delegate.gc(call)
    assert delegate.type_of(call) == ""
    assert foreign.asked() == []
