"""What the DHCP daemon reads: its flags, and the leases that another one wrote down."""

from __future__ import annotations

import argparse
import json
import os
import socket
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ocirt_cni.addresses import Address
from ocirt_cni.call import Attachment
from ocirt_cni.errors import UNKNOWN_CONTAINER, Error
from ocirt_cni.ipam import boot, dhcp_daemon
from ocirt_cni.ipam import dhcp_message as dhcp
from ocirt_cni.ipam.dhcp_client import BOUND, Client, Lease, Timing
from ocirt_cni.ipam.dhcp_leases import Folder, Held, Place
from ocirt_cni.ipam.dhcp_message import ACK, Message

MAC = bytes.fromhex("020000000001")
ATTACHMENT = Attachment("net", "c1", "eth0")


def held(path: Path, since: float = 1000.0) -> Held:
    client = Client(MAC, {61: b"\0me", 55: b"\1"}, Random(1))
    options = {dhcp.LEASE_TIME: b"\0\0\x0e\x10", dhcp.SERVER_ID: b"\x0a\1\0\1", dhcp.SUBNET_MASK: b"\xff\xff\xff\0"}
    client.resume(Lease(Message(ACK, 7, MAC, options, yours=Address.parse("10.1.0.50")), b"\2" * 6, since), since)
    return Held(ATTACHMENT, Place(str(path), "eth0"), client, 7, with_dns=True)


def loaded(folder: Folder, now: float = 1000.0) -> list[Held]:
    return list(folder.load(Timing(), now, broadcast=False))


def test_a_lease_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "state"))
    one = held(tmp_path)
    folder.save(one)
    [other] = loaded(folder)
    assert (other.attachment, other.priority, other.with_dns, other.is_held) == (ATTACHMENT, 7, True, True)
    assert (other.place.netns, other.place.ifname, other.place.identity) == (str(tmp_path), "eth0", one.place.identity)
    assert (other.client.mac, other.client.options, other.client.state) == (MAC, one.client.options, BOUND)
    assert one.client.lease is not None
    assert other.client.lease is not None
    for name in ("server", "mac", "since", "renewal", "rebinding", "expiry", "prefix"):
        assert getattr(other.client.lease, name) == getattr(one.client.lease, name), name
    folder.remove(ATTACHMENT)
    folder.remove(ATTACHMENT)
    assert os.listdir(folder.path) == []


@pytest.mark.parametrize(
    "change",
    [
        {"boot": "another"},
        {"attachment": "net c1"},
        {"identity": [1]},
        {"identity": None},
        {"ack": "00"},
        {"ack": "x"},
        {"since": None},
        {"options": {"x": "00"}},
        {"options": []},
        {"netns": None},
    ],
)
def test_what_is_no_lease_of_this_boot_is_removed(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = Folder(str(tmp_path / "state"))
    folder.save(held(tmp_path))
    [file] = Path(folder.path).iterdir()
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert loaded(folder) == []
    assert os.listdir(folder.path) == []


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_so_is_what_was_torn(tmp_path: Path, data: bytes) -> None:
    folder = Folder(str(tmp_path / "state"))
    (tmp_path / "state/x.json.new").write_bytes(data)
    assert loaded(folder) == []
    assert os.listdir(folder.path) == []


def test_the_boot_is_written_down(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "state"))
    folder.save(held(tmp_path))
    [file] = Path(folder.path).iterdir()
    assert json.loads(file.read_text())["boot"] == boot.identity()


def test_a_place_is_the_namespace_that_it_was(tmp_path: Path) -> None:
    path = tmp_path / "netns"
    path.write_text("")
    place = Place(str(path), "eth0")
    assert place.is_there
    other = tmp_path / "other"
    other.write_text("")
    other.rename(path)
    assert not place.is_there
    with pytest.raises(Error) as caught, place.enter():
        pass
    assert caught.value.code == UNKNOWN_CONTAINER
    path.unlink()
    assert not place.is_there
    with pytest.raises(Error, match="the network namespace is gone"):
        Place(str(path), "eth0")


@pytest.mark.parametrize(("text", "expected"), [("10s", 10), ("1m30s", 90), ("500ms", 0.5), ("1.5s", 1.5), ("2h", 7200)])
def test_durations(text: str, expected: float) -> None:
    assert dhcp_daemon._seconds(text) == expected


@pytest.mark.parametrize("text", ["", "10", "s", "10 s", "-1s", "1d", "1s2"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="as in 10s or 1m30s"):
        dhcp_daemon._seconds(text)


@pytest.mark.parametrize("dash", ["-", "--"])
def test_the_reference_s_flags(dash: str) -> None:
    flags = ["socketpath=/s", "pidfile=/p", "hostprefix=/h", "timeout=1s", "resendmax=2s", "resendtimeout=3s", "broadcast"]
    found = dhcp_daemon._parser().parse_args([dash + flag for flag in flags])
    assert (found.socketpath, found.pidfile, found.hostprefix, found.broadcast) == ("/s", "/p", "/h", True)
    assert (found.timeout, found.resendmax, found.resendtimeout) == (1, 2, 3)
    found = dhcp_daemon._parser().parse_args([])
    assert (found.socketpath, found.timeout, found.resendmax, found.resendtimeout) == ("/run/cni/dhcp.sock", 10, 62, 208)


def test_the_pid_s_file_has_an_absolute_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert dhcp_daemon.main(["-pidfile", "pid"]) == 2
    assert "absolute" in capsys.readouterr().err


def test_a_socket_that_systemd_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        monkeypatch.setattr(dhcp_daemon, "_FIRST_PASSED", os.dup(made.fileno()))
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    with dhcp_daemon.listen("/none/at/all") as found:
        assert found.family == socket.AF_UNIX


def test_a_place_to_listen_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert dhcp_daemon.main([f"-socketpath={tmp_path}/file/sock"]) == 1
    assert str(tmp_path) in capsys.readouterr().err
