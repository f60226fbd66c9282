"""The order in which addresses were freed."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_cni.addresses import Address
from ocirt_cni.ipam import freed
from ocirt_cni.ipam.freed import Freed

ONE, TWO, SIX = (Address.parse(text) for text in ("10.1.0.1", "10.1.0.10", "fd00:1111:2222:3333:4444:5555:6666:7777"))


def listed(path: Path) -> list[str]:
    return [str(one.address) for one in Freed(str(path))]


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The links of the host: name to number."""
    found: dict[str, int] = {}

    def number(name: str) -> int:
        if name not in found:
            raise OSError(errno.ENODEV, "no such link")
        return found[name]

    def name(number: int) -> str:
        for each, value in found.items():
            if value == number:
                return each
        raise OSError(errno.ENXIO, "no such link")

    monkeypatch.setattr(freed, "if_nametoindex", number)
    monkeypatch.setattr(freed, "if_indextoname", name)
    return found


def test_the_oldest_first(tmp_path: Path) -> None:
    one = Freed(str(tmp_path / "freed"))
    for address in (SIX, ONE, TWO):
        one.append(address, "")
    assert [each.address for each in one] == [SIX, ONE, TWO]
    assert all(len(line) == 80 for line in (tmp_path / "freed").read_bytes().splitlines(keepends=True))


def test_one_is_taken_off_wherever_it_stands(tmp_path: Path) -> None:
    one = Freed(str(tmp_path / "freed"))
    for address in (ONE, TWO, ONE, SIX, ONE):
        one.append(address, "")
    assert ONE in one
    one.remove(ONE)
    assert ONE not in one
    one.remove(ONE)
    assert [each.address for each in one] == [TWO, SIX]
    assert Address.parse("10.1.0.1") not in one, "10.1.0.10 begins like it"


def test_the_file_does_not_grow_with_the_turns(tmp_path: Path) -> None:
    path = tmp_path / "freed"
    one = Freed(str(path))
    for number in range(1000):
        one.append(Address.of(number % 13 + 167837697, 4), "")
        one.remove(next(iter(one)).address) if number > 11 else None
        one.shrink()
    assert path.stat().st_size < 3 * 4096
    assert len(list(one)) == 12


def test_an_address_waits_for_its_link(tmp_path: Path, links: dict[str, int]) -> None:
    links["veth1"] = 17
    one = Freed(str(tmp_path / "freed"))
    one.append(ONE, "veth1")
    one.append(TWO, "gone")
    first, second = list(one)
    assert (first.index, first.link, first.waits) == (17, "veth1", True)
    assert (second.index, second.waits) == (0, False)
    # The attachment is made anew, with a link of the same name.
    links["veth1"] = 18
    assert not first.waits
    # Or another link has the number, as after a look from another namespace.
    links["eth0"] = 17
    assert not first.waits


def test_lines_that_say_nothing_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "freed"
    one = Freed(str(path))
    path.write_text("x y z".ljust(79) + "\n" + "10.1.0.1 x -".ljust(79) + "\n")
    one.append(ONE, "")
    path.write_bytes(path.read_bytes() + b"10.1.0.9 torn")
    assert listed(path) == ["10.1.0.1"]


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    one = Freed(str(tmp_path / "freed"))
    assert list(one) == []
    one.remove(ONE)
    one.shrink()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=60))
def test_as_a_list_does(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int]]) -> None:
    one = Freed(str(tmp_path_factory.mktemp("freed") / "freed"))
    model: list[int] = []
    for adds, value in steps:
        if adds:
            one.append(Address.of(value, 4), "")
            model.append(value)
        else:
            one.remove(Address.of(value, 4))
            model = [each for each in model if each != value]
        one.shrink()
    assert [int(each.address) for each in one] == model
