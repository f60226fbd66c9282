"""Names of sysctls, and files below /proc/sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocirt_cni import sysctl
from ocirt_cni.errors import INVALID_CONFIG, KERNEL, UNSUPPORTED, Error


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
        ("net/ipv4/conf/eth0.100/rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
    ],
)
def test_where_it_is(name: str, path: str) -> None:
    assert sysctl.path_of(name) == f"/proc/sys/{path}"


@pytest.mark.parametrize(
    "name", ["", ".", "net..ipv4", "net/../kernel/hostname", "/net/ipv4", "net.ipv4.", "net/./x", "net.//.x"]
)
def test_names_that_lead_out(name: str) -> None:
    with pytest.raises(Error) as caught:
        sysctl.path_of(name)
    assert caught.value.code == INVALID_CONFIG


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sysctl, "_ROOT", str(tmp_path))
    (tmp_path / "net").mkdir()
    (tmp_path / "net/x").write_text("1\n")
    return tmp_path / "net"


def test_read_and_write(root: Path) -> None:
    assert sysctl.read("net.x") == "1"
    assert sysctl.read("net.y") is None
    sysctl.write("net.x", "0")
    assert (root / "x").read_text() == "0\n"


def test_a_value_that_is_right_is_not_written(root: Path) -> None:
    """As /proc/sys may be read-only."""
    before = (root / "x").stat().st_mtime_ns
    (root / "x").chmod(0o400)
    sysctl.write("net.x", "1")
    assert (root / "x").stat().st_mtime_ns == before


def test_one_that_this_kernel_does_not_have(root: Path) -> None:
    sysctl.write("net.y", "1", optional=True)
    with pytest.raises(Error) as caught:
        sysctl.write("net.y", "1")
    assert (caught.value.code, caught.value.subject) == (UNSUPPORTED, "net.y")
    assert not (root / "y").exists()


def test_one_that_cannot_be_read(root: Path) -> None:
    (root / "z").mkdir()
    with pytest.raises(Error) as caught:
        sysctl.read("net.z")
    assert (caught.value.code, caught.value.subject) == (KERNEL, "net.z")
