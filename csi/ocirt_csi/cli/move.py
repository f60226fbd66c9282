"""send and receive: a snapshot on btrfs as a stream, and a snapshot of a stream, on this node or another.

A stream is a line that says what it is, and then what `btrfs send` writes. One that begins at a snapshot that both nodes have
holds only what differs. Whoever wrote a stream is trusted as root is: `btrfs receive` makes files, owners and modes of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from ocirt_api.csi import api_pb2 as csi
from ocirt_csi import checks
from ocirt_csi.cli.client import Client, looking
from ocirt_csi.cli.look import find
from ocirt_csi.config import Config
from ocirt_csi.errors import Error
from ocirt_csi.kernel import btrfs, calls
from ocirt_csi.model import SUBVOLUME, Snapshot, Volume
from ocirt_csi.pools.base import DATA, MIB
from ocirt_csi.pools.pool import Pool

_MARK = b"ocirt-csi-snapshot-1 "
_LONGEST = 4096  # bytes of the first line
_SLACK = 16 * MIB  # bytes that trees of a copy may have more


@dataclass(frozen=True, slots=True)
class Head:
    """What a stream begins with. size: of the volume; referenced: bytes in it; base: the snapshot's id that it begins at."""

    name: str
    volume: str
    size: int
    referenced: int
    created: int
    base: str = ""


def send(config: Config, words: list[str], flags: dict[str, str]) -> int:
    """Write a snapshot, or a volume as it is now, to the standard output."""
    if os.isatty(sys.stdout.fileno()):
        raise Error("usage", "writes bytes that are not for a terminal", subject="send", hint="ocirt-csi send NAME > FILE")
    with looking(config) as (_, store, pools):
        thing = find(store, words[0])
        base = find(store, flags["from"]) if "from" in flags else None
        pool = _pool(pools, thing)
    if base is not None and not (isinstance(base, Snapshot) and base.volume == _volume_of(thing) and base.id != thing.id):
        raise Error("invalid", "is no other snapshot of the same volume", subject="--from", hint="see ocirt-csi list")
    with _still(config, thing) as snapshot:
        place = os.path.join(pool.place(snapshot), DATA)
        head = Head(
            thing.name or thing.id,
            snapshot.volume,
            snapshot.size,
            btrfs.Quotas(pool.root).referenced(btrfs.number(place)),
            snapshot.created,
            base.id if base is not None else "",
        )
        os.write(sys.stdout.fileno(), _MARK + json.dumps(asdict(head), separators=(",", ":")).encode() + b"\n")
        parent = ["-p", os.path.join(pool.place(base), DATA)] if base is not None else []
        _run(["btrfs", "-q", "send", *parent, place], "btrfs send")
    return 0


def receive(config: Config, words: list[str], flags: dict[str, str]) -> int:
    """Make a snapshot of what comes from the standard input."""
    head = read_head(sys.stdin.fileno())
    name = words[0] if words else head.name
    with Client(config) as client, looking(client.config) as (_, store, pools):
        wanted = flags.get("class") or next(iter(pools))
        if wanted not in pools:
            raise Error("invalid", f"there is no pool of the class {wanted!r}", subject="--class", hint=", ".join(pools))
        pool = pools[wanted]
        if SUBVOLUME not in pool.back_ends:
            raise Error("unsupported", f"a stream needs a pool on btrfs: {pool.why}", subject=f"pool {pool.name}")
        if store.named(Snapshot, name) is not None:
            raise Error("exists", "a snapshot of this name exists", subject=name)
        space = pool.space([one for one in store.all(Volume) if one.pool == pool.name])
        if head.referenced > space.available:
            text = f"{head.referenced} bytes are needed, and {space.available} can be promised"
            raise Error("exhausted", text, subject=f"pool {pool.name}")
        with pool.incoming() as folder:
            # Within the folder alone; what begins at another snapshot has to see that.
            within = [] if head.base else ["-C"]
            _run(["btrfs", "-q", "receive", *within, folder], "btrfs receive")
            _check(pool, folder, head)
            sys.stdout.write(f"{client.take_in(pool.name, folder, name, asdict(head))}\n")
    return 0


def read_head(fd: int) -> Head:
    """The first line of a stream, byte by byte: what follows is for another process. Raises Error("invalid")."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(fd, 1)
        line += piece
        if not piece or len(line) > _LONGEST or not (_MARK.startswith(line) or line.startswith(_MARK)):
            raise Error("invalid", "is not a stream of ocirt-csi send", subject="standard input")
    return checked_head(line[len(_MARK) :])


def checked_head(text: bytes) -> Head:
    """A head of its JSON. Raises Error("invalid") for one that says what no volume is."""
    try:
        head = Head(**json.loads(text))
        for value in (head.name, head.volume, head.base):
            if not isinstance(value, str):
                raise TypeError(value)
        if not all(type(value) is int and value >= 0 for value in (head.size, head.referenced, head.created)):
            raise TypeError(head)
    except (ValueError, TypeError) as err:
        raise Error("invalid", "begins with something else than it should", subject="the stream", cause=str(err)) from None
    checks.text(head.name, "the stream: name")
    checks.identifier(head.volume, "the stream: volume")
    if not 0 < head.size < 1 << 63 or head.referenced > head.size + _SLACK:
        raise Error("invalid", f"says that its volume has {head.size} bytes", subject="the stream")
    return head


def _check(pool: Pool, folder: str, head: Head) -> None:
    """Raises Error for a subvolume that is not what the head said."""
    data = os.path.join(folder, DATA)
    if os.listdir(folder) != [DATA] or not btrfs.is_subvolume(data):
        raise Error("invalid", "is not one subvolume with the data of a volume", subject="the stream")
    btrfs.commit(folder)
    found = btrfs.Quotas(pool.root).referenced(btrfs.number(data))
    if found > head.size + _SLACK:
        raise Error("invalid", f"has {found} bytes in a volume of {head.size}", subject="the stream")


def _volume_of(thing: Volume | Snapshot) -> str:
    return thing.volume if isinstance(thing, Snapshot) else thing.id


def _pool(pools: dict[str, Pool], thing: Volume | Snapshot) -> Pool:
    if thing.layout != SUBVOLUME:
        hint = "mount it and copy its files, or copy its image"
        text = f"is {'an' if thing.layout[0] in 'aeiou' else 'a'} {thing.layout}: btrfs alone can write a subvolume as a stream"
        raise Error("unsupported", text, subject=thing.name or thing.id, hint=hint)
    if thing.pool not in pools:
        raise Error("unavailable", "its pool cannot be used", subject=thing.id, hint=thing.pool)
    return pools[thing.pool]


@contextlib.contextmanager
def _still(config: Config, thing: Volume | Snapshot) -> Iterator[Snapshot]:
    """A snapshot as it is, or of a volume one that goes again."""
    if isinstance(thing, Snapshot):
        yield thing
        return
    with Client(config) as client:
        request = csi.CreateSnapshotRequest(name=f"sent-{secrets.token_hex(8)}", source_volume_id=thing.id)
        made = client.call("CreateSnapshot", request).snapshot.snapshot_id
        try:
            with looking(client.config) as (_, store, _pools):
                found = store.get(Snapshot, made)
            assert found is not None
            yield found
        finally:
            client.call("DeleteSnapshot", csi.DeleteSnapshotRequest(snapshot_id=made))


def _run(words: list[str], what: str) -> None:
    """A program between our standard input and output. Raises Error with its words."""
    if not calls.is_installed(words[0]):
        raise Error("unsupported", f"{words[0]} is not installed", hint="btrfs-progs")
    sys.audit(calls.AUDIT, what)
    environment = {"PATH": calls.PATH, "LC_ALL": "C"}
    done = subprocess.run(words, env=environment, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    if done.returncode:
        raise Error("kernel", f"{what} failed", cause=done.stderr.strip()[-300:] or f"exit code {done.returncode}")
