"""`ocirt doctor`: findings, and what a machine looks like that lacks something."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ocirt_cri.cli.checkup import BAD, OK, WARNING, Finding, machine


def test_a_finding() -> None:
    found = Finding("kernel", BAD, "5.4", "a newer one")
    assert str(found) == "bad     kernel: 5.4\n        → a newer one"
    assert found.document() == {"subject": "kernel", "level": "bad", "message": "5.4", "hint": "a newer one"}


@pytest.mark.parametrize(
    ("release", "level", "word"),
    [
        ("5.4.0-1", BAD, "5.12"),
        ("5.15.0", WARNING, "user namespaces"),
        ("6.1.0-9-amd64", WARNING, "lowerdir+"),
        ("6.12.1", OK, ""),
    ],
)
def test_kernels(monkeypatch: pytest.MonkeyPatch, release: str, level: str, word: str) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    (found,) = machine.kernel(None)
    assert found.level == level
    assert word in str(found)


def test_file_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    (tmp_path / "filesystems").write_text("nodev\ttmpfs\nnodev\tproc\nnodev\tsysfs\nnodev\tmqueue\n\text4\n")
    (found,) = machine.filesystems(None)
    assert (found.level, found.hint) == (BAD, "modprobe overlay")


def test_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    for name, value in (("kernel/pid_max", "4194304"), ("fs/inotify/max_user_instances", "128")):
        path = tmp_path / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")
    first, second = machine.limits(None)
    assert (first.subject, first.level) == ("kernel.pid_max", OK)
    assert (second.level, second.hint) == (WARNING, "sysctl fs.inotify.max_user_instances=1024")


@pytest.mark.parametrize(
    ("modules", "loaded", "parser", "level", "word"),
    [
        ((), False, "", OK, "not enabled"),
        (("AppArmor",), True, "", OK, "is loaded"),
        (("AppArmor",), False, "/sbin/apparmor_parser", OK, "ocirtd loads"),
        (("AppArmor",), False, "", WARNING, "install apparmor_parser"),
    ],
)
def test_apparmor(
    monkeypatch: pytest.MonkeyPatch, modules: tuple[str, ...], loaded: bool, parser: str, level: str, word: str
) -> None:
    monkeypatch.setattr("ocirt.containers.host.security_modules", lambda: modules)
    monkeypatch.setattr("ocirt.apparmor.is_loaded", lambda _: loaded)
    monkeypatch.setattr("ocirt.apparmor.parser", lambda: parser)
    (found,) = machine.apparmor(None)
    assert found.level == level
    assert word in str(found)


@pytest.mark.parametrize("check", [machine.kernel, machine.cgroups, machine.filesystems, machine.namespaces, machine.disk])
def test_on_this_machine(check: object) -> None:
    """They look, and say something with a hint where it is not as it should be."""
    assert callable(check)
    found = list(check(None))
    assert found
    assert all(one.hint for one in found if one.level != OK)
