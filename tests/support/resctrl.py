"""A file system that behaves as the kernel's resctrl does, for processors that have no such thing: a small FUSE server.

It has groups (directories that come with their files), monitoring groups, tasks that are in one group at a time, schemata that
are checked, and the words about the last failure. Sources: the kernel's filesystems/resctrl.rst; linux/fuse.h.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import threading
from pathlib import Path

from tests.support.isolation import mount, umount

RESOURCES = ("L3", "MB", "L3_MON")
_GRANULARITY = 10  # percent
_FULL_MASK = 0xFFF
_CLOSIDS = 4


class _Refused(Exception):
    def __init__(self, number: int, said: str = "") -> None:
        super().__init__(number)
        self.number = number
        self.said = said


class Node:
    """A file or directory. A file is about the directory that it is in: its tasks, its schemata."""

    def __init__(self, number: int, name: str, parent: Node | None, *, directory: bool) -> None:
        self.number = number
        self.name = name
        self.parent = parent
        self.directory = directory
        self.children: dict[str, Node] = {}
        self.text = ""
        self.tasks: set[int] = set()
        self.schemata: dict[str, dict[str, int]] = {}


class FakeResctrl:
    """Mounted at `path` between `start` and `stop`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._nodes: dict[int, Node] = {}
        self._fd = -1
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.root = self._node("", None, directory=True)
        info = self._node("info", self.root, directory=True)
        self._last = self._file("last_cmd_status", info, "ok\n")
        for name in RESOURCES:
            self._node(name, info, directory=True)
        self._file("bandwidth_gran", info.children["MB"], f"{_GRANULARITY}\n")
        self._fill(self.root)

    def start(self) -> None:
        """Mount it and serve. Raises OSError."""
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        data = f"fd={self._fd},rootmode=40755,user_id=0,group_id=0,allow_other"
        mount("fake", str(self.path), "fuse.resctrl", 0, data)
        self._thread.start()

    def stop(self) -> None:
        """Unmount it; the server ends by that."""
        umount(str(self.path), 0)
        self._thread.join(5)
        os.close(self._fd)

    # -- the tree --------------------------------------------------------------------------------------------------------------

    def _node(self, name: str, parent: Node | None, *, directory: bool) -> Node:
        node = Node(len(self._nodes) + 1, name, parent, directory=directory)  # a number is not used again
        self._nodes[node.number] = node
        if parent is not None:
            parent.children[name] = node
        return node

    def _file(self, name: str, parent: Node, text: str = "") -> Node:
        node = self._node(name, parent, directory=False)
        node.text = text
        return node

    def _fill(self, group: Node) -> None:
        self._file("tasks", group)
        self._file("schemata", group)
        self._node("mon_groups", group, directory=True)
        group.schemata = {"L3": {"0": _FULL_MASK, "1": _FULL_MASK}, "MB": {"0": 100, "1": 100}}

    def _make(self, parent: Node, name: str) -> Node:
        if name in parent.children:
            raise _Refused(errno.EEXIST)
        if parent is self.root:
            if len(self._groups()) >= _CLOSIDS:
                raise _Refused(errno.ENOSPC, "Failed to allocate CLOSIDs")
            node = self._node(name, parent, directory=True)
            self._fill(node)
            return node
        if parent.name == "mon_groups":
            node = self._node(name, parent, directory=True)
            self._file("tasks", node)
            return node
        raise _Refused(errno.EPERM)

    def _groups(self) -> list[Node]:
        return [self.root, *(node for node in self.root.children.values() if "tasks" in node.children)]

    def _remove(self, parent: Node, name: str) -> None:
        node = parent.children.get(name)
        if node is None:
            raise _Refused(errno.ENOENT)
        if "tasks" not in node.children or (parent is not self.root and parent.name != "mon_groups"):
            raise _Refused(errno.EPERM)
        if parent is self.root:
            self.root.tasks |= node.tasks
        del parent.children[name]

    # -- what the files mean ---------------------------------------------------------------------------------------------------

    def _read(self, node: Node) -> str:
        group = node.parent
        assert group is not None
        if node.name == "tasks":
            return "".join(f"{task}\n" for task in sorted(group.tasks) if Path(f"/proc/{task}").exists())
        if node.name == "schemata":
            lines = []
            for resource, domains in group.schemata.items():
                form = "{}={:x}" if resource == "L3" else "{}={:4d}"
                lines.append(f"{resource:>6}:" + ";".join(form.format(*each) for each in domains.items()) + "\n")
            return "".join(lines)
        return node.text

    def _write(self, node: Node, text: str, caller: int) -> None:
        group = node.parent
        assert group is not None
        if node.name == "tasks":
            self._move(group, int(text) or caller)
        elif node.name == "schemata":
            group.schemata = self._checked(group.schemata, text)
        else:
            raise _Refused(errno.EACCES)

    def _move(self, group: Node, task: int) -> None:
        if not Path(f"/proc/{task}").exists():
            raise _Refused(errno.ESRCH, f"No task {task}")
        holder = group.parent
        if holder is not None and holder.name == "mon_groups":
            if holder.parent is None or task not in holder.parent.tasks:
                raise _Refused(errno.EINVAL, "Can't move task to different control group")
            group.tasks.add(task)
            return
        for other in self._groups():
            other.tasks.discard(task)
        group.tasks.add(task)

    def _checked(self, before: dict[str, dict[str, int]], text: str) -> dict[str, dict[str, int]]:
        after = {resource: dict(domains) for resource, domains in before.items()}
        for line in text.splitlines():
            resource, _, values = line.partition(":")
            resource = resource.strip()
            if resource not in after:
                raise _Refused(errno.EINVAL, f"Unknown or unsupported resource name '{resource}'")
            for each in values.split(";"):
                domain, _, value = each.partition("=")
                if domain not in after[resource]:
                    raise _Refused(errno.EINVAL, f"Unknown domain {domain}")
                after[resource][domain] = self._value(resource, value)
        return after

    def _value(self, resource: str, value: str) -> int:
        if resource == "L3":
            mask = int(value, 16)
            if not 0 < mask <= _FULL_MASK:
                raise _Refused(errno.EINVAL, f"Mask out of range {value}")
            low = mask // (mask & -mask)
            if low & (low + 1):
                raise _Refused(errno.EINVAL, f"The mask {value} has non-consecutive 1-bits")
            return mask
        percent = int(value)
        if not _GRANULARITY <= percent <= 100:
            raise _Refused(errno.EINVAL, f"MB value {percent} out of range [{_GRANULARITY},100]")
        return -(-percent // _GRANULARITY) * _GRANULARITY

    # -- linux/fuse.h ----------------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._fd, 1 << 18)
            except OSError as error:
                if error.errno == errno.ENODEV:  # unmounted
                    return
                continue
            _, code, unique, number, _, _, caller, _ = struct.unpack_from("IIQQIIII", request)
            try:
                answer = self._answer(code, self._nodes.get(number), request[40:], caller)
                result = 0
            except _Refused as refused:
                answer, result = b"", -refused.number
                self._last.text = (refused.said or "ok") + "\n"
            if answer is not None:
                with contextlib.suppress(OSError):
                    os.write(self._fd, struct.pack("IiQ", 16 + len(answer), result, unique) + answer)

    def _answer(self, code: int, node: Node | None, body: bytes, caller: int) -> bytes | None:
        if code == 26:  # INIT
            return struct.pack("IIIIHHIIHHI28x", 7, 31, 0, 0, 12, 10, 1 << 16, 1, 16, 0, 0)
        if code in (2, 36, 42):  # FORGET, INTERRUPT, BATCH_FORGET
            return None
        if node is None:
            raise _Refused(errno.ENOENT)
        if code == 1:  # LOOKUP
            found = node.children.get(_name(body))
            if found is None:
                raise _Refused(errno.ENOENT)
            return _entry(found)
        if code in (3, 4):  # GETATTR, SETATTR
            return struct.pack("QII", 0, 0, 0) + _attributes(node)
        if code == 9:  # MKDIR
            made = self._make(node, _name(body[8:]))
            self._last.text = "ok\n"
            return _entry(made)
        if code == 11:  # RMDIR
            self._remove(node, _name(body))
            return b""
        if code in (14, 27):  # OPEN, OPENDIR
            return struct.pack("QII", 0, 1, 0)  # FOPEN_DIRECT_IO
        if code == 15:  # READ
            offset, size = struct.unpack_from("QI", body, 8)
            return self._read(node).encode()[offset : offset + size]
        if code == 16:  # WRITE
            size = struct.unpack_from("I", body, 16)[0]
            self._write(node, body[40 : 40 + size].decode(), caller)
            self._last.text = "ok\n"
            return struct.pack("II", size, 0)
        if code == 28:  # READDIR
            return _listing(node, *struct.unpack_from("QI", body, 8))
        if code in (18, 25, 29, 34, 38):  # RELEASE, FLUSH, RELEASEDIR, ACCESS, DESTROY
            return b""
        raise _Refused(errno.ENOSYS)


def _name(body: bytes) -> str:
    return body.partition(b"\0")[0].decode()


def _attributes(node: Node) -> bytes:
    mode = stat.S_IFDIR | 0o755 if node.directory else stat.S_IFREG | 0o644
    return struct.pack("QQQQQQIIIIIIIIII", node.number, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _entry(node: Node) -> bytes:
    return struct.pack("QQQQII", node.number, 0, 0, 0, 0, 0) + _attributes(node)


def _listing(node: Node, offset: int, size: int) -> bytes:
    found = b""
    for index, child in enumerate(list(node.children.values())[offset:], offset + 1):
        name = child.name.encode()
        entry = struct.pack("QQII", child.number, index, len(name), 4 if child.directory else 8) + name + bytes(-len(name) % 8)
        if len(found) + len(entry) > size:
            break
        found += entry
    return found
