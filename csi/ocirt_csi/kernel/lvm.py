"""Logical volumes, by the commands of lvm2 (lvm(8)), and what the device mapper shows of them in sysfs.

Nothing passes a shell. Names are checked before they become words, and reports are read as JSON.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ocirt_csi.errors import Error
from ocirt_csi.kernel import calls

NAME = re.compile(r"[A-Za-z0-9+_.][A-Za-z0-9+_.-]{0,119}")  # of a group or a volume (lvm(8), "Valid Names")
TAG = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+./=!:&#-]{0,1023}")  # lvm(8), "Tags"
THIN, THIN_POOL, LINEAR = "thin", "thin-pool", "linear"  # of segments
_FIELDS = "lv_name,lv_size,lv_tags,segtype,pool_lv,origin,data_percent,metadata_percent,lv_metadata_size,zero,lv_active"
_BLOCK = "/sys/class/block"
# What lvm2 does itself where no udev is there to do it: in a container, say.
_ALONE = "activation{udev_sync=0 udev_rules=0} devices{obtain_device_list_from_udev=0}"
_UDEV = "/run/udev/control"
_HUNDRED = 100


@dataclass(frozen=True, slots=True)
class Group:
    """A volume group. Bytes; extent: what the sizes of its volumes are multiples of."""

    name: str
    uuid: str
    size: int
    free: int
    extent: int


@dataclass(frozen=True, slots=True)
class Logical:
    """A logical volume. mapped: bytes that a thin one has blocks for, or that a thin pool has given away."""

    name: str
    size: int
    segments: str = LINEAR
    pool: str = ""
    origin: str = ""
    tags: tuple[str, ...] = field(default=())
    mapped: int = 0
    metadata: tuple[int, int] = (0, 0)  # bytes used, bytes
    zeroes: bool = True  # whether a pool clears blocks before a volume gets them
    active: bool = False


def is_there() -> str:
    """Why this machine has no logical volumes; "" if it can have some."""
    if not os.path.exists("/sys/class/misc/device-mapper"):
        return "this kernel has no device mapper (modprobe dm-mod)"
    return "" if calls.is_installed("lvm") else "lvm2 is not installed"


def group(name: str) -> Group:
    """A volume group. Raises Error."""
    fields = "vg_name,vg_uuid,vg_size,vg_free,vg_extent_size"
    for one in _report("vgs", "vg", fields, checked(name)):
        return Group(one["vg_name"], one["vg_uuid"], int(one["vg_size"]), int(one["vg_free"]), int(one["vg_extent_size"]))
    raise Error("not-found", "there is no such volume group", subject=name)


def volumes(of: str) -> list[Logical]:
    """The logical volumes of a group that are to be seen. Raises Error."""
    return [read(one) for one in _report("lvs", "lv", _FIELDS, checked(of))]


def volume(of: str, name: str) -> Logical | None:
    """One of them. Raises Error."""
    return next((one for one in volumes(of) if one.name == name), None)


def read(row: dict[str, str]) -> Logical:
    """A row of a report in bytes without units. Raises KeyError, ValueError."""
    size = int(row["lv_size"])
    metadata = int(row["lv_metadata_size"] or 0)
    return Logical(
        name=row["lv_name"],
        size=size,
        segments=row["segtype"],
        pool=row["pool_lv"],
        origin=row["origin"],
        tags=tuple(one for one in row["lv_tags"].split(",") if one),
        mapped=_part(row["data_percent"], size),
        metadata=(_part(row["metadata_percent"], metadata), metadata),
        zeroes=row["zero"] in ("zero", "1"),
        active=row["lv_active"] not in ("", "0"),
    )


def create(of: str, name: str, size: int, tags: Iterable[str], *, pool: str = "", active: bool = True) -> None:
    """Make a volume of its own blocks, or in a thin pool. Raises Error."""
    words = ["lvcreate", "--yes", "--quiet", "--setactivationskip", "n", "--activate", "y" if active else "n"]
    words += ["--name", checked(name), *_tags("--addtag", tags)]
    if pool:
        words += ["--type", "thin", "--virtualsize", f"{size}b", "--thinpool", checked(pool)]
    else:
        # Without zeroing and wiping by lvm2: what must be zeros we write ourselves.
        words += ["--type", "linear", "--size", f"{size}b", "--zero", "n", "--wipesignatures", "n"]
    run([*words, "--", checked(of)])


def snapshot(of: str, origin: str, name: str, tags: Iterable[str], *, read_only: bool) -> None:
    """Make a thin volume that shares all of another's blocks, not active. Its file system is whole: lvm2 holds it still."""
    words = ["lvcreate", "--yes", "--quiet", "--snapshot", "--setactivationskip", "n", "--activate", "n"]
    words += ["--permission", "r" if read_only else "rw", "--name", checked(name), *_tags("--addtag", tags)]
    run([*words, "--", f"{checked(of)}/{checked(origin)}"])


def extend(of: str, name: str, size: int) -> None:
    """Let a volume have more bytes, used or not; one that has them is left alone. Raises Error."""
    try:
        run(["lvextend", "--yes", "--quiet", "--size", f"{size}b", "--", f"{checked(of)}/{checked(name)}"])
    except Error as err:
        if not any(words in err.cause for words in ("not larger than existing", "matches existing size")):
            raise


def activate(of: str, name: str) -> None:
    """Let a volume have a device. Raises FileNotFoundError, Error."""
    try:
        run(["lvchange", "--yes", "--quiet", "--activate", "y", "--", f"{checked(of)}/{checked(name)}"])
    except Error as err:
        if "Failed to find logical volume" in err.cause:
            raise FileNotFoundError(errno.ENOENT, "its volume is gone", f"{of}/{name}") from None
        raise


def deactivate(of: str, name: str) -> None:
    """Take its device away. Raises Error("in-use") while somebody has it open."""
    _let_go(["lvchange", "--yes", "--quiet", "--activate", "n"], of, name)


def tag(of: str, name: str, add: Iterable[str], drop: Iterable[str] = ()) -> None:
    """Change what tags say of it, if anything. Raises Error."""
    changes = [*_tags("--addtag", add), *_tags("--deltag", drop)]
    if changes:
        run(["lvchange", "--yes", "--quiet", *changes, "--", f"{checked(of)}/{checked(name)}"])


def remove(of: str, name: str) -> None:
    """Take a volume away. Raises Error("in-use") while somebody has it open, Error."""
    _let_go(["lvremove", "--yes", "--quiet"], of, name)


def _let_go(words: Sequence[str], of: str, name: str) -> None:
    """A command that takes a device away."""
    try:
        run([*words, "--", f"{checked(of)}/{checked(name)}"])
    except Error as err:
        if "in use" in err.cause:
            raise Error("in-use", "is busy", subject=f"{of}/{name}", hint="a process has its device open") from None
        raise


def device(of: str, name: str) -> str | None:
    """The device of a volume that is active, e.g. "/dev/dm-3", by what the kernel calls it."""
    wanted = f"{of.replace('-', '--')}-{name.replace('-', '--')}"
    for number in os.listdir(_BLOCK):
        if number.startswith("dm-") and _word(f"{_BLOCK}/{number}/dm/name") == wanted:
            return _node(number)
    return None


def run(words: Sequence[str]) -> str:
    """A command of lvm2; what it printed. Raises Error with its own words."""
    alone = [] if os.path.exists(_UDEV) else ["--config", _ALONE]
    return calls.run(["lvm", words[0], *alone, *words[1:]])


def checked(name: str) -> str:
    """The name. Raises Error("invalid") for one that lvm2 does not take, or that would be an option."""
    if not NAME.fullmatch(name) or name in (".", ".."):
        raise Error("invalid", f"{name[:64]!r} is not the name of a volume or a group", subject="lvm")
    return name


def _tags(option: str, tags: Iterable[str]) -> list[str]:
    words = []
    for one in tags:
        if not TAG.fullmatch(one):
            raise Error("invalid", f"{one[:64]!r} is not a tag", subject="lvm")
        words += [option, one]
    return words


def _report(command: str, kind: str, fields: str, subject: str) -> list[dict[str, str]]:
    options = ["--reportformat", "json", "--units", "b", "--nosuffix", "--options", fields]
    text = run([command, *options, "--", subject])
    try:
        return [row for report in json.loads(text)["report"] for row in report.get(kind, [])]
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise Error("kernel", f"the report of {command} cannot be read", subject=subject, cause=str(err)) from None


def _part(percent: str, size: int) -> int:
    """Bytes of a share in percent with two digits behind the point, rounded up."""
    if not percent:
        return 0
    whole, _, digits = percent.partition(".")
    return -(-size * int(whole + digits.ljust(2, "0")[:2]) // (_HUNDRED * _HUNDRED))


def _node(number: str) -> str:
    path = f"/dev/{number}"
    if not os.path.exists(path):  # a /dev that the kernel does not fill
        major, _, minor = _word(f"{_BLOCK}/{number}/dev").partition(":")
        try:
            os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(int(major), int(minor)))
        except FileExistsError:
            pass
    return path


def _word(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:  # it went meanwhile
        return ""
