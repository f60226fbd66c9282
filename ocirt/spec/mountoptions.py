"""Mount options: the strings of config.json as flags for mount(2) and mount_setattr(2).

What an option means is said by the table "Linux mount options" in the runtime specification (config.md) and by mount(8). An
option that is not known belongs to the file system and goes to it as data.

Two things differ from a plain table of flags. The access-time options are one choice out of three and not three flags, so that
the last one counts; and clearing one of them leads back to the kernel's default, relatime. An option that clears (`exec`, `rw`)
is remembered in `clear`: a flag that nobody spoke of may be kept when a bind mount is remounted, one that was cleared may not.
"""

from __future__ import annotations

from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    class MountOptions(TypedDict):
        """What `parse` makes of the options of one mount."""

        flags: int  # MS_*, as the mount should end up, with MS_BIND, MS_REC and MS_REMOUNT
        clear: int  # MS_* flags that were cleared by name
        attr_set: int  # MOUNT_ATTR_* of `flags`, for fsmount(2) or mount_setattr(2) without AT_RECURSIVE
        attr_clear: int  # those of `clear`; MOUNT_ATTR__ATIME whenever an access-time option was given
        rec_set: int  # MOUNT_ATTR_* for mount_setattr(2) with AT_RECURSIVE (rro, rnoexec …); apply both pairs, these last
        rec_clear: int
        propagation: list[int]  # MS_SHARED, MS_PRIVATE, MS_SLAVE, MS_UNBINDABLE, each perhaps with MS_REC, in the order given
        bind: bool
        recursive: bool  # rbind
        remount: bool
        idmap: str | None  # "idmap" or "ridmap"
        tmpcopyup: bool
        superblock: list[str]  # flags of the superblock that fsconfig(2) takes by name; `ro` isn't one: see `parse`
        data: list[str]  # what is left, for the file system


# include/uapi/linux/mount.h
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x200000
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR__ATIME = 0x70
MS_BIND = 4096
MS_DIRSYNC = 128
MS_I_VERSION = 1 << 23
MS_LAZYTIME = 1 << 25
MS_MANDLOCK = 64
MS_NOATIME = 1024
MS_NODEV = 4
MS_NODIRATIME = 2048
MS_NOEXEC = 8
MS_NOSUID = 2
MS_NOSYMFOLLOW = 256
MS_PRIVATE = 1 << 18
MS_RDONLY = 1
MS_REC = 16384
MS_RELATIME = 1 << 21
MS_REMOUNT = 32
MS_SHARED = 1 << 20
MS_SILENT = 32768
MS_SLAVE = 1 << 19
MS_STRICTATIME = 1 << 24
MS_SYNCHRONOUS = 16
MS_UNBINDABLE = 1 << 17

_ATIME = MS_NOATIME | MS_RELATIME | MS_STRICTATIME

# A positive number is set, a negative one cleared.
FLAGS: dict[str, int] = {
    "async": -MS_SYNCHRONOUS,
    "atime": -MS_NOATIME,
    "bind": MS_BIND,
    "defaults": 0,
    "dev": -MS_NODEV,
    "diratime": -MS_NODIRATIME,
    "dirsync": MS_DIRSYNC,
    "exec": -MS_NOEXEC,
    "iversion": MS_I_VERSION,
    "lazytime": MS_LAZYTIME,
    "loud": -MS_SILENT,
    "mand": MS_MANDLOCK,
    "noatime": MS_NOATIME,
    "nodev": MS_NODEV,
    "nodiratime": MS_NODIRATIME,
    "noexec": MS_NOEXEC,
    "noiversion": -MS_I_VERSION,
    "nolazytime": -MS_LAZYTIME,
    "nomand": -MS_MANDLOCK,
    "norelatime": -MS_RELATIME,
    "nostrictatime": -MS_STRICTATIME,
    "nosuid": MS_NOSUID,
    "nosymfollow": MS_NOSYMFOLLOW,
    "rbind": MS_BIND | MS_REC,
    "relatime": MS_RELATIME,
    "remount": MS_REMOUNT,
    "ro": MS_RDONLY,
    "rw": -MS_RDONLY,
    "silent": MS_SILENT,
    "strictatime": MS_STRICTATIME,
    "suid": -MS_NOSUID,
    "symfollow": -MS_NOSYMFOLLOW,
    "sync": MS_SYNCHRONOUS,
}

# The same for the whole tree below the mount. MS_* here too: both tables share their arithmetic.
RECURSIVE: dict[str, int] = {
    "ratime": -MS_NOATIME,
    "rdev": -MS_NODEV,
    "rdiratime": -MS_NODIRATIME,
    "rexec": -MS_NOEXEC,
    "rnoatime": MS_NOATIME,
    "rnodev": MS_NODEV,
    "rnodiratime": MS_NODIRATIME,
    "rnoexec": MS_NOEXEC,
    "rnorelatime": -MS_RELATIME,
    "rnostrictatime": -MS_STRICTATIME,
    "rnosuid": MS_NOSUID,
    "rnosymfollow": MS_NOSYMFOLLOW,
    "rrelatime": MS_RELATIME,
    "rro": MS_RDONLY,
    "rrw": -MS_RDONLY,
    "rstrictatime": MS_STRICTATIME,
    "rsuid": -MS_NOSUID,
    "rsymfollow": -MS_NOSYMFOLLOW,
}

# Also the values that linux.rootfsPropagation takes.
PROPAGATION: dict[str, int] = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "rshared": MS_SHARED | MS_REC,
    "rslave": MS_SLAVE | MS_REC,
    "runbindable": MS_UNBINDABLE | MS_REC,
    "shared": MS_SHARED,
    "slave": MS_SLAVE,
    "unbindable": MS_UNBINDABLE,
}


def known() -> list[str]:
    """The options that `features` lists as mountOptions, sorted. `idmap` and `ridmap` stand elsewhere there (mountExtensions)."""
    return sorted([*FLAGS, *RECURSIVE, *PROPAGATION, "tmpcopyup"])


def parse(options: list[str], type: str = "", pointer: str = "") -> MountOptions:  # noqa: A002  (the name that the field has)
    """Sort the options of one mount of file system `type`; `pointer` is the JSON pointer of the mount.

    `ro` is a flag of the mount only and not in `superblock`: a superblock is shared with other mounts of it, and nothing could be
    made in a read-only tmpfs.

    Raises Error("invalid") where options and type don't go together: file-system options on a bind mount (the kernel would ignore
    them), neither a type nor a bind.
    """
    flags = clear = rec_flags = rec_clear = 0
    propagation: list[int] = []
    data: list[str] = []
    idmap = None
    tmpcopyup = False
    for option in options:
        if (code := FLAGS.get(option)) is not None:
            if code > 0:
                if code & _ATIME:
                    flags &= ~_ATIME
                flags |= code
                clear &= ~code
            else:
                flags &= ~-code
                clear |= -code
        elif (code := PROPAGATION.get(option)) is not None:
            propagation.append(code)
        elif (code := RECURSIVE.get(option)) is not None:
            if code > 0:
                if code & _ATIME:
                    rec_flags &= ~_ATIME
                rec_flags |= code
                rec_clear &= ~code
            else:
                rec_flags &= ~-code
                rec_clear |= -code
        elif option == "tmpcopyup":
            tmpcopyup = True
        elif option in ("idmap", "ridmap"):
            idmap = option
        else:
            data.append(option)
    bind = flags & MS_BIND != 0
    if bind:
        if data:
            raise Error(
                "invalid",
                f"a bind mount takes no options of a file system, but {data[0]!r} is not one of a mount",
                subject=pointer + "/options",
                hint=_bind_hint(data[0]),
            )
    elif type in ("", "none", "bind", "rbind") and not flags & MS_REMOUNT:
        raise Error(
            "invalid",
            f"neither a bind mount nor a file system: the type is {type!r}",
            subject=pointer + "/options",
            hint='add "bind" or "rbind" to the options, or name the file system in "type", such as "tmpfs"',
        )
    attr_set, attr_clear = _attributes(flags, clear)
    rec_set, rec_clear = _attributes(rec_flags, rec_clear)
    return {
        "flags": flags,
        "clear": clear,
        "attr_set": attr_set,
        "attr_clear": attr_clear,
        "rec_set": rec_set,
        "rec_clear": rec_clear,
        "propagation": propagation,
        "bind": bind,
        "recursive": flags & MS_REC != 0,
        "remount": flags & MS_REMOUNT != 0,
        "idmap": idmap,
        "tmpcopyup": tmpcopyup,
        "superblock": _superblock(flags) if flags & (MS_DIRSYNC | MS_LAZYTIME | MS_MANDLOCK | MS_SYNCHRONOUS) else [],
        "data": data,
    }


def _attributes(flags: int, clear: int) -> tuple[int, int]:
    """MS_* as MOUNT_ATTR_*: (to set, to clear). The lowest four bits are the same in both; relatime is 0 in MOUNT_ATTR__ATIME."""
    attr_set = flags & 15
    attr_clear = clear & 15
    if (flags | clear) & ~15:
        if (flags | clear) & _ATIME:
            # mount_setattr(2) wants the whole field in attr_clr, whatever value attr_set has for it.
            attr_clear |= MOUNT_ATTR__ATIME
            if flags & MS_NOATIME:
                attr_set |= MOUNT_ATTR_NOATIME
            elif flags & MS_STRICTATIME:
                attr_set |= MOUNT_ATTR_STRICTATIME
        if flags & MS_NODIRATIME:
            attr_set |= MOUNT_ATTR_NODIRATIME
        elif clear & MS_NODIRATIME:
            attr_clear |= MOUNT_ATTR_NODIRATIME
        if flags & MS_NOSYMFOLLOW:
            attr_set |= MOUNT_ATTR_NOSYMFOLLOW
        elif clear & MS_NOSYMFOLLOW:
            attr_clear |= MOUNT_ATTR_NOSYMFOLLOW
    return attr_set, attr_clear


def _superblock(flags: int) -> list[str]:
    """The flags that fs/fs_context.c takes from fsconfig(FSCONFIG_SET_FLAG) for any file system."""
    names = ((MS_DIRSYNC, "dirsync"), (MS_LAZYTIME, "lazytime"), (MS_MANDLOCK, "mand"), (MS_SYNCHRONOUS, "sync"))
    return [name for flag, name in names if flags & flag]


def _bind_hint(option: str) -> str:
    from ocirt.spec.names import nearest  # noqa: PLC0415  (only for an error)

    near = nearest(option, known())
    return f"did you mean {near!r}?" if near else "leave it out, or mount the file system itself"
