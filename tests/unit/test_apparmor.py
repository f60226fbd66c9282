"""The AppArmor profile of our own: its text, and what is said where it cannot be loaded."""

from __future__ import annotations

import posix
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ocirt import apparmor
from ocirt.errors import Error


def rules(text: str) -> list[str]:
    lines = [line.strip() for line in text.split("{", 1)[1].rsplit("}", 1)[0].splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def test_the_text() -> None:
    """Whole, with one name throughout, and nothing that ends the rules early."""
    text = apparmor.text()
    assert "\nprofile ocirt-default flags=" in "\n" + text
    assert all(rule.endswith(",") for rule in rules(text))
    assert text.count("{") == text.count("}")
    assert {"deny mount,", "deny umount,", "deny remount,", "deny pivot_root,"} <= set(rules(text))
    assert {"ptrace peer=x,", "signal peer=x,"} <= set(rules(apparmor.text("x")))


@pytest.mark.parametrize("name", ["", "a b", "a{", "a\nb", "x,", "ä"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(Error, match="name of a profile"):
        apparmor.text(name)


def as_expression(pattern: str) -> re.Pattern[str]:
    """A file pattern of apparmor.d(5), as far as the profile has them."""
    text = pattern.replace(".", r"\.").replace("?", "[^/]").replace("{", "(?:").replace("}", ")").replace(",", "|")
    return re.compile(text.replace("**", "\0").replace("*", "[^/]*").replace("\0", ".*"))


@pytest.mark.parametrize(
    ("path", "letters"),
    [
        *[(path, "w") for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/swappiness", "/proc/irq/0/smp_affinity")],
        *[(path, "w") for path in ("/proc/mtrr", "/proc/bus/pci/00/01.0", "/sys/power/state", "/sys/class/net/lo/mtu")],
        *[(path, "w") for path in ("/sys/f/x", "/sys/fsx/y", "/sys/fs/bpf/x", "/sys/fs/cg/x", "/sys/fs/cgroups/x", "/sys/file")],
        *[(path, "rw") for path in ("/proc/kcore", "/proc/sysrq-trigger", "/proc/kpagecount", "/sys/firmware/acpi/tables/DSDT")],
        *[(path, "rw") for path in ("/sys/kernel/security/apparmor/profiles", "/sys/devices/virtual/powercap/x/energy_uj")],
        *[(path, "") for path in ("/proc/1/oom_score_adj", "/proc/1/task/2/comm", "/sys/fs/cgroup/a/cgroup.procs", "/etc/x")],
    ],
)
def test_files(path: str, letters: str) -> None:
    """What is denied of a path."""
    denied = [rule.removesuffix(",").split() for rule in rules(apparmor.text()) if rule.startswith("deny /")]
    found = "".join(sorted({letter for _, pattern, what in denied if as_expression(pattern).fullmatch(path) for letter in what}))
    assert found.replace("l", "") == letters


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kernel's list of profiles, and no program that loads any."""
    loaded = tmp_path / "profiles"
    loaded.write_text("other (enforce)\nnot ours (x) (complain)\n")
    monkeypatch.setattr(apparmor, "PROFILES", str(loaded))
    monkeypatch.setattr(apparmor, "parser", lambda: "")
    return loaded


@pytest.fixture
def parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Path) -> Callable[[str], Path]:
    """Have a script of sh load profiles; it gets the profile at its standard input."""

    def install(script: str) -> Path:
        program = tmp_path / apparmor.PARSER
        program.write_text("#!/bin/sh\n" + script)
        program.chmod(0o755)
        monkeypatch.setattr(apparmor, "parser", lambda: str(program))
        return tmp_path

    return install


def test_loading(parser: Callable[[str], Path], kernel: Path) -> None:
    """Once: the second time the kernel has it."""
    place = parser('cd "${0%/*}"; echo "$@" >>calls; cat >text; echo "ocirt-default (enforce)" >>profiles\n')
    assert apparmor.load()
    assert (place / "calls").read_text() == "--replace --skip-cache\n"
    assert (place / "text").read_text() == apparmor.text()
    assert not apparmor.load()
    assert (place / "calls").read_text().count("\n") == 1


def test_failing_to_load(parser: Callable[[str], Path], kernel: Path) -> None:
    parser("cat >/dev/null; echo 'AppArmor parser error: no such\n thing' >&2; exit 1\n")
    with pytest.raises(Error, match="AppArmor profile ocirt-default: cannot be loaded: AppArmor parser error: no such thing"):
        apparmor.load()
    parser("exit 3\n")
    with pytest.raises(Error, match="apparmor_parser failed"):
        apparmor.load()


def test_nothing_to_load_it_with(kernel: Path) -> None:
    with pytest.raises(Error, match=r"profile ocirt-default: not loaded.*install apparmor_parser"):
        apparmor.load()
    kernel.unlink()
    with pytest.raises(Error, match="profiles cannot be read") as caught:
        apparmor.load()
    assert caught.value.code == "unsupported"


def test_finding_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On PATH, or where administrators' programs are; never in the current directory."""
    program = tmp_path / apparmor.PARSER
    program.touch()
    program.chmod(stat.S_IRWXU)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(apparmor, "_PLACES", ())
    monkeypatch.setitem(posix.environ, b"PATH", b".::/nothing")
    assert apparmor.parser() == ""
    monkeypatch.setattr(apparmor, "_PLACES", (str(tmp_path),))
    assert apparmor.parser() == str(program)
