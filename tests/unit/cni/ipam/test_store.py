"""host-local's leases: the files, the index beside them, the boot."""

from __future__ import annotations

import errno
import os
import posix
from collections.abc import Callable
from pathlib import Path

import pytest

from ocirt_cni.addresses import Address
from ocirt_cni.call import Attachment
from ocirt_cni.errors import TAKEN, Error
from ocirt_cni.ipam import boot, store
from ocirt_cni.ipam.store import Store

A = Attachment("net", "a", "eth0")
B = Attachment("net", "b", "eth0")
ONE, TWO, SIX = (Address.parse(text) for text in ("10.1.0.1", "10.1.0.2", "fd00::1234"))


@pytest.fixture
def leases(tmp_path: Path) -> Callable[[], Store]:
    return lambda: Store(str(tmp_path), "net")


def files(path: Path) -> set[str]:
    return {name for name in os.listdir(path / "net") if name not in (".ocirt", "lock")}


def reference(path: Path, address: str, text: str, last: str | None = None) -> None:
    """What the reference writes when it leases an address."""
    (path / "net").mkdir(exist_ok=True)
    (path / "net" / address).write_text(text)
    (path / "net" / "last_reserved_ip.0").write_text(last or address)


def test_a_lease_is_what_the_reference_writes(tmp_path: Path, leases: Callable[[], Store]) -> None:
    with leases() as one:
        one.lease(A, [ONE, SIX])
    assert files(tmp_path) == {"10.1.0.1", "fd00::1234"}
    lease = tmp_path / "net" / "10.1.0.1"
    assert lease.read_bytes() == b"a\r\neth0"
    assert lease.stat().st_mode & 0o777 == 0o600


def test_it_is_found_and_freed(tmp_path: Path, leases: Callable[[], Store]) -> None:
    with leases() as one:
        one.lease(A, [ONE, SIX])
        one.lease(B, [TWO])
        assert one.held(A, thoroughly=False) == [ONE, SIX]
        assert str(one.owner(ONE)) == "a eth0"
        assert one.release(A) == [ONE, SIX]
        assert one.release(A) == []
        assert one.held(B) == [TWO]
        assert one.owner(ONE) is None
        assert [str(record.address) for record in one.freed] == ["10.1.0.1", "fd00::1234"]
    assert files(tmp_path) == {"10.1.0.2"}
    assert os.listdir(tmp_path / "net/.ocirt/of") == ["b:eth0"]


def test_an_index_that_somebody_spoilt(tmp_path: Path, leases: Callable[[], Store]) -> None:
    with leases() as one:
        one.lease(A, [ONE])
        one.lease(B, [TWO])
    index = tmp_path / "net/.ocirt/of"
    (index / "a:eth0").unlink()
    (index / "a:eth0").write_text("no symlink")
    (index / "b:eth0").unlink()
    (index / "b:eth0").symlink_to("no address")
    with leases() as one:
        assert one.held(A) == [ONE]
        assert one.release(B) == [TWO]
        one.lease(A, [SIX])
        assert one.held(A, thoroughly=False) == [SIX], "the one that it had is not lost, but DEL has to be told of it"
        assert one.release(A) == [SIX]
        assert one.release(A) == [ONE]


def test_all_or_none(tmp_path: Path, leases: Callable[[], Store]) -> None:
    with leases() as one:
        one.lease(B, [TWO])
        with pytest.raises(Error) as caught:
            one.lease(A, [ONE, TWO])
        assert caught.value.code == TAKEN
        assert "10.1.0.2: it belongs to b eth0" in str(caught.value)
        assert one.held(A) == []
    assert files(tmp_path) == {"10.1.0.2"}
    assert os.listdir(tmp_path / "net/.ocirt/of") == ["b:eth0"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, leases: Callable[[], Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """The second write fails."""
    writes = []
    real = os.write

    def write(fd: int, data: bytes) -> int:
        writes.append(data)
        if len(writes) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data)

    with leases() as one:
        monkeypatch.setattr(posix, "write", write)
        with pytest.raises(OSError, match="No space"):
            one.lease(A, [ONE, TWO])
        monkeypatch.undo()
        assert one.held(A) == []
    assert files(tmp_path) == set()
    assert sorted(os.listdir(tmp_path / "net/.ocirt")) == ["boot", "of"]


def test_a_full_disk_does_not_keep_an_address(
    tmp_path: Path, leases: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with leases() as one:
        one.lease(A, [ONE])
        monkeypatch.setattr(posix, "write", write)
        assert one.release(A) == [ONE]
    assert files(tmp_path) == set()


def test_an_index_that_is_wrong_counts_for_nothing(tmp_path: Path, leases: Callable[[], Store]) -> None:
    """The reference freed the address, and gave it to somebody else."""
    with leases() as one:
        one.lease(A, [ONE])
    reference(tmp_path, "10.1.0.1", "b\r\neth0")
    with leases() as one:
        assert one.held(A) == []
        assert one.release(A) == []
        assert one.held(B) == [ONE]


def test_what_the_reference_leased_is_found(tmp_path: Path, leases: Callable[[], Store]) -> None:
    reference(tmp_path, "10.1.0.1", "a\r\neth0")
    reference(tmp_path, "10.1.0.2", " a\r\neth0\n ")  # it passes over white space
    with leases() as one:
        assert one.held(A, thoroughly=False) == []
        assert sorted(one.held(A)) == [ONE, TWO]
        assert len(one.release(A)) == 2
    assert files(tmp_path) == {"last_reserved_ip.0"}


def test_an_old_lease_is_of_the_container_as_a_whole(tmp_path: Path, leases: Callable[[], Store]) -> None:
    """It is freed, unless another one names the interface, as the reference has it."""
    reference(tmp_path, "10.1.0.1", "a")
    reference(tmp_path, "10.1.0.2", "a\r\neth0")
    with leases() as one:
        assert one.release(A) == [TWO]
        assert one.release(A) == [ONE]


def test_what_the_reference_leased_is_adopted(tmp_path: Path, leases: Callable[[], Store]) -> None:
    with leases() as one:
        one.adopt(0, ONE)
        one.set_last(0, ONE)
        reference(tmp_path, "10.1.0.2", "b\r\neth0")
        one.adopt(0, ONE)
        assert one.held(B, thoroughly=False) == [TWO]
        assert one.last(0) == TWO


def test_all_leases_are_read_once_only(tmp_path: Path, leases: Callable[[], Store], monkeypatch: pytest.MonkeyPatch) -> None:
    reference(tmp_path, "10.1.0.2", "b\r\neth0")
    with leases() as one:
        one.adopt(0, ONE)
    with leases() as one:
        monkeypatch.setattr(posix, "listdir", None)
        one.adopt(0, ONE)
        one.set_last(0, ONE)
        one.adopt(0, ONE)
        assert one.held(B) == [TWO]
        one.lease(A, [ONE])
        one.release(A)


@pytest.mark.parametrize("text", ["10.1.0.7", "fd00::1:2", "2001:1234:5678:1234:1111:2222:3333:4444", "::"])
def test_our_mark_is_read_by_the_reference_and_never_written_by_it(leases: Callable[[], Store], text: str) -> None:
    """Go reads what inet_pton(3) reads, and writes dots in an IPv6 address for mapped ones only."""
    address = Address.parse(text)
    with leases() as one:
        one.set_last(3, address)
        written = Path(one.path, "last_reserved_ip.3").read_text()
        assert one.last(3) == address
    assert Address.parse(written) == address
    assert ":" in written
    assert "." in written


def test_the_last_address_gets_shorter_and_longer(leases: Callable[[], Store]) -> None:
    with leases() as one:
        for text in ("10.1.0.7", "10.100.200.201", "10.1.0.7", "fd00::1:2", "::", "10.1.0.7"):
            one.set_last(0, Address.parse(text))
            assert one.last(0) == Address.parse(text)


def test_a_torn_record_of_the_last_address_is_none(tmp_path: Path, leases: Callable[[], Store]) -> None:
    with leases() as one:
        for text in ("", "10.1.0.523", "x"):
            (tmp_path / "net/last_reserved_ip.0").write_text(text)
            assert one.last(0) is None


def test_names_beyond_a_file_s(leases: Callable[[], Store]) -> None:
    """A container's name has no greatest length."""
    first, second = Attachment("net", "c" * 300, "eth0"), Attachment("net", "c" * 300, "eth1")
    with leases() as one:
        one.lease(first, [ONE])
        one.lease(second, [TWO])
        assert one.held(first, thoroughly=False) == [ONE]
        assert one.release(second) == [TWO]


def test_a_file_that_was_left_half_made_is_in_nobody_s_way(tmp_path: Path, leases: Callable[[], Store]) -> None:
    with leases():
        pass
    new = tmp_path / "net/.ocirt/new"
    for is_link in (False, True):
        if is_link:
            new.symlink_to("x")
        else:
            new.write_text("1")
        with leases() as one:
            one.lease(A, [ONE])
            one.set_whole(0, "x")
            one.set_whole(0, "y")
            assert one.whole(0) == "y"
            one.release(A)


def test_collect(tmp_path: Path, leases: Callable[[], Store]) -> None:
    with leases() as one:
        one.lease(A, [ONE])
        one.lease(B, [TWO, SIX])
    for number, text in enumerate(("", "old", "gone", "b\r\neth1")):
        reference(tmp_path, f"10.1.0.{10 + number}", text)
    (tmp_path / "net/notes").write_text("of an administrator")
    with leases() as one:
        gone = one.collect(frozenset({("b", "eth0"), ("old", "eth0")}))
    assert sorted(map(str, gone)) == ["10.1.0.1", "10.1.0.10", "10.1.0.12", "10.1.0.13"]
    assert files(tmp_path) == {"10.1.0.2", "fd00::1234", "10.1.0.11", "notes", "last_reserved_ip.0"}
    assert os.listdir(tmp_path / "net/.ocirt/of") == ["b:eth0"]


def test_leases_of_another_boot_are_freed(tmp_path: Path, leases: Callable[[], Store], monkeypatch: pytest.MonkeyPatch) -> None:
    with leases() as one:
        one.lease(A, [ONE])
        one.set_whole(0, "x")
        one.lease(B, [TWO])
        one.release(B)
    reference(tmp_path, "10.1.0.7", "since\r\neth0")
    os.utime(tmp_path / "net/10.1.0.1", (1, 1))
    with leases() as one:
        assert one.held(A) == [ONE], "the boot is the same"
    monkeypatch.setattr(boot, "identity", lambda: "another")
    with leases() as one:
        assert one.held(A) == []
        assert one.whole(0) == ""
        assert list(one.freed) == []
        assert str(one.owner(Address.parse("10.1.0.7"))) == "since eth0"
    assert files(tmp_path) == {"10.1.0.7", "last_reserved_ip.0"}
    assert os.listdir(tmp_path / "net/.ocirt/of") == []
    assert os.readlink(tmp_path / "net/.ocirt/boot") == "another"


def test_the_first_look_frees_what_the_reference_left_from_another_boot(tmp_path: Path, leases: Callable[[], Store]) -> None:
    reference(tmp_path, "10.1.0.1", "old\r\neth0")
    reference(tmp_path, "10.1.0.2", "new\r\neth0")
    reference(tmp_path, "10.1.0.3", "")
    os.utime(tmp_path / "net/10.1.0.1", (boot.began() - 10, boot.began() - 10))
    with leases():
        pass
    assert files(tmp_path) == {"10.1.0.2", "last_reserved_ip.0"}


def test_the_boot_is_this_one() -> None:
    assert boot.identity() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    btime = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    assert abs(boot.began() - int(btime.split()[1])) < 5


def test_no_folder_no_store(tmp_path: Path) -> None:
    assert Store.find(str(tmp_path), "net") is None
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "net").write_text("a file")
    with pytest.raises(FileExistsError):
        Store(str(tmp_path), "net")


def test_owners() -> None:
    assert store.Owner.parse("") is None
    assert store.Owner.parse(" \n") is None
    assert str(store.Owner.parse("c\r\neth0")) == "c eth0"
