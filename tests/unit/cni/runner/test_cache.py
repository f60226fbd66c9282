"""The cache of attachments: libcni's files, written whole, and read however they are."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_cni.call import Attachment
from ocirt_cni.errors import INVALID_ENVIRONMENT, IO_FAILURE, TAKEN, Error
from ocirt_cni.runner.cache import Cache, Entry

ONE = Attachment("net", "c1", "eth0")
RESULT = {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}], "ips": [{"address": "10.1.0.2/24"}], "dns": {}}
# As libcni 1.3 writes it.
LIBCNI = {
    "kind": "cniCacheV1",
    "containerId": "c1",
    "config": base64.b64encode(b'{"name": "net"}').decode(),
    "ifName": "eth0",
    "networkName": "net",
    "netns": "/run/netns/x",
    "cniArgs": [["K8S_POD_NAME", "pod"], ["IgnoreUnknown", "1"]],
    "capabilityArgs": {"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}]},
    "result": RESULT,
}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(str(tmp_path / "cni"))


def entry(attachment: Attachment = ONE, **more: Any) -> Entry:
    fields: dict[str, Any] = {
        "netns": LIBCNI["netns"],
        "args": (("K8S_POD_NAME", "pod"), ("IgnoreUnknown", "1")),
        "capabilities": LIBCNI["capabilityArgs"],
        "config": b'{"name": "net"}',
        "result": RESULT,
    }
    return Entry(attachment, **fields | more)


def put(cache: Cache, text: str | bytes, name: str = "net-c1-eth0", folder: str = "results") -> Path:
    path = Path(cache.folder, folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_file_is_as_libcni_writes_it(cache: Cache) -> None:
    cache.save(entry())
    path = Path(cache.folder, "results", "net-c1-eth0")
    assert json.loads(path.read_text()) == LIBCNI
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(cache.own) == []


def test_what_is_empty_is_left_out(cache: Cache) -> None:
    cache.save(entry(netns="", args=(), capabilities={}, result=None))
    found = json.loads(Path(cache.path(ONE)).read_text())
    assert set(found) == {"kind", "containerId", "config", "ifName", "networkName"}


def test_a_file_of_libcnis_is_read(cache: Cache) -> None:
    put(cache, json.dumps(LIBCNI | {"somethingNew": 1}))
    found = cache.find(ONE)
    assert found is not None
    assert found.document() == LIBCNI
    result = found.parsed()
    assert result is not None
    assert str(result.ips[0].address) == "10.1.0.2/24"
    assert [one.attachment for one in cache.attachments()] == [ONE]


@pytest.mark.parametrize("folder", ["results", "cache/results"])
def test_a_file_of_old_holds_a_result_alone(cache: Cache, folder: str) -> None:
    path = put(cache, json.dumps(RESULT), folder=folder)
    found = cache.find(ONE)
    assert found is not None
    assert (found.config, found.netns, found.result) == (b"", "", RESULT)
    assert cache.attachments() == []  # whose it is cannot be told from its name
    cache.remove(ONE)
    assert not path.exists()


BROKEN = [
    "",
    "{",
    "[]",
    "null",
    "\0" * 100,
    b"\xff",
    "{}",
    json.dumps(LIBCNI | {"kind": "cniCacheV9"}),
    json.dumps(LIBCNI | {"containerId": 7}),
    json.dumps(LIBCNI | {"containerId": ""}),
    json.dumps({key: value for key, value in LIBCNI.items() if key != "ifName"}),
    json.dumps(LIBCNI | {"cniArgs": [["a"]]}),
    json.dumps(LIBCNI | {"cniArgs": 7}),
    json.dumps(LIBCNI | {"capabilityArgs": [1]}),
    json.dumps(LIBCNI | {"result": []}),
    json.dumps(LIBCNI | {"netns": 7}),
    json.dumps(LIBCNI | {"config": "%"}),
    json.dumps(LIBCNI | {"config": 7}),
    json.dumps(LIBCNI)[:-10],
]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_file_is_as_none_and_can_be_removed_and_replaced(cache: Cache, text: str | bytes) -> None:
    path = put(cache, text)
    assert cache.find(ONE) is None
    assert cache.attachments() == []
    cache.save(entry())
    assert cache.find(ONE) is not None
    put(cache, text)
    cache.remove(ONE)
    assert not path.exists()


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda one: st.lists(one, max_size=3) | st.dictionaries(st.sampled_from(sorted(LIBCNI)), one, max_size=9),
    ).map(lambda one: json.dumps(one).encode())
)
def test_no_content_makes_it_fail(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    cache = Cache(str(tmp_path_factory.mktemp("cache")))
    put(cache, data)
    cache.find(ONE)
    cache.attachments()


def test_removing_what_is_not_there_is_no_error(cache: Cache) -> None:
    cache.remove(ONE)
    cache.save(entry())
    cache.remove(ONE)
    cache.remove(ONE)
    assert cache.find(ONE) is None


def test_a_name_that_two_attachments_share_is_the_firsts(cache: Cache) -> None:
    """libcni would write over it."""
    first, second = Attachment("a-b", "c", "eth0"), Attachment("a", "b-c", "eth0")
    cache.save(entry(first))
    with pytest.raises(Error, match="belongs to a-b c eth0") as caught:
        cache.save(entry(second))
    assert caught.value.code == TAKEN
    assert cache.find(second) is None
    cache.remove(second)
    assert cache.find(first) is not None


def test_attachments_by_name_by_container_and_network(cache: Cache) -> None:
    for network, container, ifname in (("b", "c1", "eth0"), ("a", "c2", "eth0"), ("a", "c1", "eth1"), ("ab", "c1-x", "eth0")):
        cache.save(entry(Attachment(network, container, ifname)))

    def names(container: str = "", network: str = "") -> list[str]:
        return [str(one.attachment) for one in cache.attachments(container, network)]

    assert names() == ["a c1 eth1", "a c2 eth0", "ab c1-x eth0", "b c1 eth0"]
    assert names("c1") == ["a c1 eth1", "b c1 eth0"]
    assert names(network="a") == ["a c1 eth1", "a c2 eth0"]
    assert names("c1", "b") == ["b c1 eth0"]
    assert names("c9") == []


def test_a_name_that_is_too_long_for_a_file(cache: Cache) -> None:
    with pytest.raises(Error, match="too long for the name of a file") as caught:
        cache.save(entry(Attachment("n" * 150, "c" * 150, "eth0")))
    assert caught.value.code == INVALID_ENVIRONMENT


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(str(tmp_path / "file"))
    assert cache.find(ONE) is None
    assert cache.attachments() == []
    with pytest.raises(Error, match="the result cannot be kept: Not a directory") as caught:
        cache.save(entry())
    assert caught.value.code == IO_FAILURE


def test_a_write_that_fails_leaves_the_old_file(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.save(entry())
    before = Path(cache.path(ONE)).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ocirt_cni.runner.cache.os.rename", full)
    with pytest.raises(Error, match="No space left"):
        cache.save(entry(netns="/other"))
    assert Path(cache.path(ONE)).read_bytes() == before
    assert os.listdir(cache.own) == []


def test_what_a_killed_writer_left_is_no_attachment(cache: Cache) -> None:
    cache.save(entry())
    left = Path(cache.own, "net c1 eth0")
    left.write_text("{")
    assert [one.attachment for one in cache.attachments()] == [ONE]
    cache.save(entry())
    assert not left.exists()
    left.write_text("{")
    cache.remove(ONE)
    assert not left.exists()


def test_sweeping_takes_what_was_left_of_one_network(cache: Cache) -> None:
    cache.sweep("net")
    cache.save(entry())
    for name in ("net c1 eth0", "net c2 eth0", "net-b c1 eth0", "lock"):
        Path(cache.own, name).touch()
    cache.sweep("net")
    assert sorted(os.listdir(cache.own)) == ["lock", "net-b c1 eth0"]
    assert [one.attachment for one in cache.attachments()] == [ONE]


def test_a_link_in_the_place_of_the_scratch_file_is_not_followed(cache: Cache, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    os.makedirs(cache.own)
    Path(cache.own, "net c1 eth0").symlink_to(victim)
    with pytest.raises(Error):
        cache.save(entry())
    assert victim.read_text() == "kept"
