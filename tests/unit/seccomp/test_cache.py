"""The cache of translated filters: what is used, and what is translated anew and never loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocirt.errors import Error
from ocirt.seccomp import Filter, cache
from ocirt.seccomp import compile as compiler
from tests.conftest import ROOT
from tests.seccomp_profiles import docker_default, small

OTHER = {"defaultAction": "SCMP_ACT_ALLOW"}


class Translations:
    """Counts the translations."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._translate = compiler.compile_filter
        monkeypatch.setattr(compiler, "compile_filter", self)

    def __call__(self, section: dict[str, Any], *, pointer: str) -> Filter:
        self.count += 1
        return self._translate(section, pointer=pointer)


@pytest.fixture
def translations(monkeypatch: pytest.MonkeyPatch) -> Translations:
    """How often a profile had to be translated."""
    return Translations(monkeypatch)


class Calls:
    """Counts the calls of functions, Python's and C's, as long as the context lasts."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Calls:
        sys.setprofile(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _event(self, _frame: object, event: str, _argument: object) -> None:
        self.count += event in ("call", "c_call")


def _parts(made: Filter) -> tuple[bytes, int, bool]:
    return made.program, made.flags, made.listener


def _entry(root: Path) -> Path:
    (entry,) = (root / "@seccomp").iterdir()
    return entry


NOTIFYING = {"defaultAction": "SCMP_ACT_ALLOW", "flags": [], "syscalls": [{"names": ["getpid"], "action": "SCMP_ACT_NOTIFY"}]}


@pytest.mark.parametrize("section", [small(), docker_default(), OTHER, NOTIFYING])
def test_the_second_load_translates_nothing(tmp_path: Path, translations: Translations, section: dict[str, Any]) -> None:
    """And gives the same filter."""
    first = cache.load(str(tmp_path), section)
    second = cache.load(str(tmp_path), section)
    assert translations.count == 1
    assert _parts(first) == _parts(second)
    assert _entry(tmp_path).stat().st_mode == 0o100600
    assert (tmp_path / "@seccomp").stat().st_mode & 0o777 == 0o700


def test_a_hit_loads_neither_libseccomp_nor_the_compiler(tmp_path: Path) -> None:
    """Nor any module that would cost a start something."""
    program = f"""
import sys
sys.path.append({str(ROOT)!r})
import ocirt.kernel.ffi, ocirt.errors
before = set(sys.modules)
from ocirt.seccomp import cache
cache.load({str(tmp_path)!r}, {docker_default()!r})
print(*sorted(set(sys.modules) - before))
print(any("libseccomp" in line for line in open("/proc/self/maps")))
"""
    command = [sys.executable, "-I", "-S", "-B", "-c", program]
    cold, warm = (subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines() for _ in range(2))
    assert "ocirt.seccomp.compile" in cold[0].split()
    assert cold[1] == "True"
    assert set(warm[0].split()) <= {"_blake2", "ocirt.seccomp", "ocirt.seccomp.cache"}
    assert warm[1] == "False"


def test_a_hit_is_little_work(tmp_path: Path) -> None:
    """A few dozen calls of functions, as many for docker's profile as for one of three lines: a start must not notice it."""
    counts = set()
    for section in (small(), docker_default()):
        cache.load(str(tmp_path), section)
        with Calls() as calls:
            cache.load(str(tmp_path), section)
        counts.add(calls.count)
    assert len(counts) == 1
    assert counts.pop() <= 60


@pytest.mark.parametrize(
    "change",
    [
        lambda section: section | {"flags": []},
        lambda section: section | {"defaultErrnoRet": 2},
        lambda section: section | {"defaultErrnoRet": None},
        lambda section: section | {"syscalls": section["syscalls"][:-1]},
        lambda section: section | {"architectures": section["architectures"][:1]},
        lambda section: section | {"syscalls": [*section["syscalls"], {"names": ["mount"], "action": "SCMP_ACT_ALLOW"}]},
    ],
)
def test_another_profile_has_another_entry(
    tmp_path: Path,
    translations: Translations,
    change: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """Whatever differs."""
    cache.load(str(tmp_path), docker_default())
    cache.load(str(tmp_path), change(docker_default()))
    assert translations.count == 2
    assert len(list((tmp_path / "@seccomp").iterdir())) == 2


@pytest.mark.parametrize("what", ["release", "version", "library", "format", "architecture"])
def test_the_key_has_all_that_a_program_depends_on(
    tmp_path: Path,
    translations: Translations,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    """A new kernel, a new libseccomp, a new ocirt, another machine on the same directory."""
    cache.load(str(tmp_path), small())
    system = os.uname()
    if what == "library":
        (tmp_path / "libseccomp.so.2").write_bytes(b"")
        monkeypatch.setattr(cache, "library_places", lambda: [str(tmp_path / "libseccomp.so.2")])
    elif what == "format":
        monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    elif what == "architecture":
        monkeypatch.setattr(cache, "ARCH", "pdp11")
    else:
        changed = [
            f"other {field}" if index == ("release", "version").index(what) + 2 else field for index, field in enumerate(system)
        ]
        monkeypatch.setattr("posix.uname", lambda: os.uname_result(changed))
    cache.load(str(tmp_path), small())
    assert translations.count == 2


def test_a_replaced_library_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade renames a new file into place."""
    place = tmp_path / "libseccomp.so.2"
    place.write_bytes(b"old")
    monkeypatch.setattr(cache, "library_places", lambda: [str(place)])
    before = cache._library()
    new = tmp_path / "new"
    new.write_bytes(b"new")
    new.rename(place)
    assert cache._library() != before


def test_a_library_at_an_unusual_place_is_known_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has to be loaded then."""
    monkeypatch.setattr(cache, "library_places", list)
    assert cache._library() >= (2, 5, 0)


def _flip(entry: Path, place: int) -> None:
    data = bytearray(entry.read_bytes())
    data[place] ^= 0x01
    entry.write_bytes(data)


def _symlink(entry: Path) -> None:
    entry.rename(entry.parent.parent / "elsewhere")
    entry.symlink_to(entry.parent.parent / "elsewhere")


def _fifo(entry: Path) -> None:
    entry.unlink()
    os.mkfifo(entry, 0o600)


def _grow(entry: Path, size: int) -> None:
    with entry.open("ab") as file:
        file.truncate(size)


POISON: dict[str, Callable[[Path], object]] = {
    "empty": lambda entry: os.truncate(entry, 0),
    "header only": lambda entry: os.truncate(entry, 56),
    "cut": lambda entry: os.truncate(entry, entry.stat().st_size - 8),
    "cut in the checksum": lambda entry: os.truncate(entry, entry.stat().st_size - 1),
    "longer": lambda entry: _grow(entry, entry.stat().st_size + 8),
    "huge": lambda entry: _grow(entry, 1 << 30),
    "magic flipped": lambda entry: _flip(entry, 0),
    "key flipped": lambda entry: _flip(entry, 16),
    "flags flipped": lambda entry: _flip(entry, 48),
    "listener flipped": lambda entry: _flip(entry, 52),
    "program flipped": lambda entry: _flip(entry, 60),
    "checksum flipped": lambda entry: _flip(entry, -1),
    "group may write": lambda entry: entry.chmod(0o620),
    "others may read": lambda entry: entry.chmod(0o604),
    "set-uid": lambda entry: entry.chmod(0o4600),
    "symlink": _symlink,
    "fifo": _fifo,
}


@pytest.mark.parametrize("poison", POISON)
def test_what_is_wrong_is_translated_anew(tmp_path: Path, translations: Translations, poison: str) -> None:
    """And replaced by what is right."""
    right = cache.load(str(tmp_path), docker_default())
    entry = _entry(tmp_path)
    POISON[poison](entry)
    assert _parts(cache.load(str(tmp_path), docker_default())) == _parts(right)
    assert translations.count == 2
    assert entry.is_file()
    assert not entry.is_symlink()
    cache.load(str(tmp_path), docker_default())
    assert translations.count == 2


def test_a_directory_in_the_place_of_an_entry(tmp_path: Path, translations: Translations) -> None:
    """Cannot be replaced; costs a translation each time."""
    cache.load(str(tmp_path), small())
    entry = _entry(tmp_path)
    entry.unlink()
    entry.mkdir(0o600)
    cache.load(str(tmp_path), small())
    cache.load(str(tmp_path), small())
    assert translations.count == 3
    assert list((tmp_path / "@seccomp").iterdir()) == [entry]


def test_another_profile_s_entry_renamed_into_place(tmp_path: Path, translations: Translations) -> None:
    """A weaker filter, well-formed and with a right checksum, is not taken for the one that was asked for."""
    cache.load(str(tmp_path), OTHER)
    weak = _entry(tmp_path)
    contents = weak.read_bytes()
    weak.unlink()
    strict = cache.load(str(tmp_path), docker_default())
    _entry(tmp_path).write_bytes(contents)
    assert _parts(cache.load(str(tmp_path), docker_default())) == _parts(strict)
    assert translations.count == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("directory", [False, True])
def test_what_belongs_to_somebody_else_is_not_used(tmp_path: Path, translations: Translations, *, directory: bool) -> None:
    """A file is replaced; a directory is left alone."""
    right = cache.load(str(tmp_path), small())
    entry = _entry(tmp_path)
    os.chown(entry.parent if directory else entry, 1000, 1000)
    before = entry.stat().st_ino
    assert _parts(cache.load(str(tmp_path), small())) == _parts(right)
    assert translations.count == 2
    assert (entry.stat().st_ino == before) is directory
    assert entry.stat().st_uid == 0


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_directory_that_others_may_write_to_is_not_used(tmp_path: Path, translations: Translations, mode: int) -> None:
    """Neither read nor written."""
    (tmp_path / "@seccomp").mkdir()
    (tmp_path / "@seccomp").chmod(mode)
    cache.load(str(tmp_path), small())
    cache.load(str(tmp_path), small())
    assert translations.count == 2
    assert not list((tmp_path / "@seccomp").iterdir())


def test_a_symlink_in_the_place_of_the_directory_is_not_followed(tmp_path: Path, translations: Translations) -> None:
    """Not to be read, and not to be written through."""
    (tmp_path / "elsewhere").mkdir(0o700)
    (tmp_path / "@seccomp").symlink_to("elsewhere")
    cache.load(str(tmp_path), small())
    assert translations.count == 1
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("root", ["missing", "file"])
def test_a_root_that_cannot_hold_a_cache(tmp_path: Path, root: str) -> None:
    """The filter is made all the same."""
    (tmp_path / "file").write_text("")
    assert cache.load(str(tmp_path / root), small()).program
    assert not (tmp_path / "missing").exists()


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails or stops short leaves nothing behind."""
    monkeypatch.setattr("posix.write", lambda _fd, data: len(data) - 1)
    assert cache.load(str(tmp_path), small()).program

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("posix.write", full)
    assert cache.load(str(tmp_path), small()).program
    assert not list((tmp_path / "@seccomp").iterdir())


def test_the_umask_does_not_matter(tmp_path: Path, translations: Translations) -> None:
    """With 0777 the file would come out unreadable, and never be used."""
    (tmp_path / "@seccomp").mkdir(0o700)
    before = os.umask(0o777)
    try:
        cache.load(str(tmp_path), OTHER)
    finally:
        os.umask(before)
    cache.load(str(tmp_path), OTHER)
    assert translations.count == 1


def test_the_cache_stays_small(tmp_path: Path) -> None:
    """Also of what writers that were killed left behind."""
    cache.load(str(tmp_path), OTHER)
    (tmp_path / "@seccomp" / ".abc.123").write_bytes(b"half")
    for count in range(70):
        cache.load(str(tmp_path), OTHER | {"listenerMetadata": str(count)})
        assert len(list((tmp_path / "@seccomp").iterdir())) <= 64
    assert not (tmp_path / "@seccomp" / ".abc.123").exists()


def test_a_bad_profile_is_not_kept(tmp_path: Path) -> None:
    """It fails each time, with the pointer that was given."""
    for pointer in ("/linux/seccomp", "/process/seccomp"):
        with pytest.raises(Error) as caught:
            cache.load(str(tmp_path), {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["x"]}, pointer=pointer)
        assert caught.value.subject == pointer + "/flags/0"
    assert not (tmp_path / "@seccomp").exists()
