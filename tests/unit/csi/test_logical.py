"""LVM: what its reports say, which words its commands get, what a pool can promise. Its commands are a dictionary here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ocirt_csi import model
from ocirt_csi.config import pool as read_pool
from ocirt_csi.errors import Error
from ocirt_csi.kernel import calls, loops, lvm
from ocirt_csi.model import Snapshot, Volume
from ocirt_csi.pools.logical import LogicalVolumes, joined, pieces, worst

MIB = 1 << 20
VOLUME = Volume(id="vol-1", name="ä b", pool="p", place="vol-1", size=64 * MIB, charge=64 * MIB, layout=model.LOGICAL, block=True)
SNAPSHOT = Snapshot(id="snap-1", pool="p", place="snap-1", volume="vol-1", size=64 * MIB, layout=model.LOGICAL)
ROW = {
    "lv_name": "x", "lv_size": "0", "lv_tags": "", "segtype": "linear", "pool_lv": "", "origin": "", "data_percent": "",
    "metadata_percent": "", "lv_metadata_size": "", "zero": "", "lv_active": "",
}  # fmt: skip


class _Commands:
    """Commands that were given, and the reports of `vgs` and `lvs`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *rows: dict[str, str]) -> None:
        self.given: list[list[str]] = []
        self.rows = [{**ROW, **row} for row in rows]
        monkeypatch.setattr(lvm, "is_there", lambda: "")
        monkeypatch.setattr(calls, "run", self.run)

    def run(self, words: list[str], **_: Any) -> str:
        self.given.append([one for one in words if one not in ("--config", lvm._ALONE)])
        group = {"vg_name": "g", "vg_uuid": "u", "vg_size": "1073741824", "vg_free": "536870912", "vg_extent_size": "4194304"}
        if words[1] == "vgs":
            return json.dumps({"report": [{"vg": [group]}]})
        return json.dumps({"report": [{"lv": self.rows}]}) if words[1] == "lvs" else ""

    def changes(self) -> list[list[str]]:
        return [words[1:] for words in self.given if words[1] not in ("vgs", "lvs")]


def _thin(name: str, size: int, percent: str, *tags: str) -> dict[str, str]:
    row = {"lv_name": name, "lv_size": str(size), "segtype": "thin", "pool_lv": "t", "data_percent": percent}
    return {**row, "lv_tags": ",".join(tags)}


POOL = {
    "lv_name": "t", "lv_size": str(1000 * MIB), "segtype": "thin-pool", "data_percent": "10.00", "metadata_percent": "5.50",
    "lv_metadata_size": str(8 * MIB), "zero": "zero",
}  # fmt: skip


@pytest.mark.parametrize(
    ("percent", "wanted"), [("", 0), ("0.00", 0), ("50.00", 500), ("33.34", 334), ("33.3", 333), ("100", 1000)]
)
def test_shares_are_bytes(percent: str, wanted: int) -> None:
    assert lvm.read({**ROW, "lv_size": "1000", "data_percent": percent}).mapped == wanted


@pytest.mark.parametrize("name", ["", "-rf", "a/b", "a b", "..", ".", "x" * 121, "a\n", "ä", "$(x)"])
def test_names_that_are_none(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """No command is given, wherever they stand."""
    commands = _Commands(monkeypatch)
    attempts = (
        lambda: lvm.create(name, "x", MIB, []),
        lambda: lvm.create("g", name, MIB, []),
        lambda: lvm.remove("g", name),
        lambda: lvm.volumes(name),
        lambda: lvm.snapshot("g", name, "y", [], read_only=True),
        lambda: lvm.tag("g", "x", [f"t{name} "]),
    )
    for attempt in attempts:
        with pytest.raises(Error) as caught:
            attempt()
        assert caught.value.code == "invalid"
    assert commands.given == []


def test_a_record_goes_into_tags_and_back() -> None:
    """In pieces that LVM takes, whatever is in it; of half of them nothing is made."""
    for thing in (VOLUME, SNAPSHOT):
        tags = pieces(thing)
        assert all(lvm.TAG.fullmatch(one) for one in tags)
        assert joined(["ocirt-csi", *reversed(tags)]) == thing
    long = Volume(
        id="v", pool="p", place="v", size=1, charge=1, layout="logical", parameters={str(n): f"{n * 7919:x}" for n in range(400)}
    )
    tags = pieces(long)
    assert len(tags) > 1
    assert joined(tags) == long
    assert joined(tags[1:]) is None
    assert joined(["ocirt-csi.record0of1=%%%"]) is None


def test_what_thin_volumes_may_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a volume, what a snapshot has, all of a stranger; what is promised already is not counted twice."""
    commands = _Commands(
        monkeypatch,
        POOL,
        _thin("vol-1", 64 * MIB, "50.00", *pieces(VOLUME)),
        _thin("snap-1", 64 * MIB, "25.00", *pieces(SNAPSHOT)),
        _thin("other", 100 * MIB, "0.00"),
        {"lv_name": "root", "lv_size": str(200 * MIB)},
    )
    assert [worst(one) for one in lvm.volumes("g")[1:4]] == [64 * MIB, 16 * MIB, 100 * MIB]
    back_end = LogicalVolumes("g", "t")
    room = back_end.room(())
    assert (room.total, room.free, room.promised) == (1000 * MIB, 900 * MIB, (180 - 100) * MIB)
    assert back_end.room({"other"}).promised == 0
    thick = LogicalVolumes("g", "").room({"vol-1"})
    assert (thick.free, thick.promised) == ((512 + 64) * MIB, 0)
    assert commands.changes() == []


def test_pools_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _Commands(monkeypatch, {**POOL, "zero": ""}, {"lv_name": "root"})
    for thin, words in (("t", "clearing"), ("root", "not a thin pool"), ("none", "no such thin pool")):
        with pytest.raises(Error, match=words):
            LogicalVolumes("g", thin)
    monkeypatch.setattr(lvm, "is_there", lambda: "this kernel has no device mapper")
    with pytest.raises(Error, match="device mapper"):
        LogicalVolumes("g", "")


def test_metadata_that_is_almost_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both figures are told before anything is made."""
    commands = _Commands(monkeypatch, {**POOL, "metadata_percent": "95.00"})
    back_end = LogicalVolumes("g", "t")
    with pytest.raises(Error, match=r"7969178 of 8388608 bytes") as caught:
        back_end.make("/p/vol-1", VOLUME)
    assert caught.value.code == "exhausted"
    with pytest.raises(Error, match="metadata"):
        back_end.snapshot("/p/vol-1", "/p/snap-1")
    assert commands.changes() == []


def test_the_words_of_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands = _Commands(monkeypatch, POOL, {**_thin("vol-1", 64 * MIB, "0.00"), "lv_tags": ""})
    monkeypatch.setattr(loops, "find", lambda _: None)
    back_end = LogicalVolumes("g", "t")
    back_end.make(str(tmp_path / "vol-1"), VOLUME)
    (made,) = commands.changes()
    assert made[0] == "lvcreate"
    assert made[-2:] == ["--", "g"]
    assert made[made.index("--virtualsize") + 1] == f"{64 * MIB}b"
    assert f"ocirt-csi.pool={back_end.id}" in made
    with pytest.raises(Error, match="none of ours"):  # it has not our tag
        back_end.remove(str(tmp_path / "vol-1"))
    back_end.note(str(tmp_path / "vol-1"), VOLUME)
    assert commands.changes()[-1][-4:] == ["--addtag", *pieces(VOLUME), "--", "g/vol-1"]


def test_thick_volumes_have_no_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = _Commands(monkeypatch)
    with pytest.raises(Error, match="thin=POOL"):
        LogicalVolumes("g", "").snapshot("/p/vol-1", "/p/snap-1")
    assert commands.changes() == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/x,backend=lvm", "name of a volume group"),
        ("/x,thin=t", "name of a volume group"),
        ("/x,vg=-rf", "LVM takes"),
        ("/x,vg=g,thin=a/b", "LVM takes"),
        ("/x,vg=g,backend=loop", "has no volume group"),
        ("/x,vg=g,over=2", "promised twice"),
    ],
)
def test_settings_that_are_none(text: str, words: str) -> None:
    with pytest.raises(Error, match=words):
        read_pool(text)


def test_settings() -> None:
    found = read_pool("/x,vg=g,thin=t,over=2,class=fast")
    assert (found.group, found.thin, found.over, found.name) == ("g", "t", 2.0, "fast")


def test_tags_that_are_as_they_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that was done before it was noted is noted once more; lvchange does not take a command that changes nothing."""
    commands = _Commands(monkeypatch)
    lvm.tag("g", "vol-1", ())
    assert commands.changes() == []
    lvm.tag("g", "vol-1", iter(["a"]), {"b"})
    assert commands.changes() == [["lvchange", "--yes", "--quiet", "--addtag", "a", "--deltag", "b", "--", "g/vol-1"]]
