"""create, clone, snapshot, expand, delete, mount, unmount: by the services that a kubelet calls."""

from __future__ import annotations

import os
import sys

from ocirt_api.csi import api_pb2 as csi
from ocirt_csi import parameters
from ocirt_csi.cli.client import Client, looking
from ocirt_csi.cli.look import find
from ocirt_csi.config import Config
from ocirt_csi.errors import Error
from ocirt_csi.model import Snapshot, Use, Volume

_MODE = csi.VolumeCapability.AccessMode(mode=csi.VolumeCapability.AccessMode.SINGLE_NODE_WRITER)


def create(config: Config, words: list[str], flags: dict[str, str]) -> int:
    """Make a volume."""
    request = csi.CreateVolumeRequest(name=words[0], volume_capabilities=[_capability(flags.get("fs-type", ""))])
    if "size" in flags:
        request.capacity_range.required_bytes = parameters.size(flags["size"], "--size")
    if "class" in flags:
        request.parameters[parameters.CLASS] = flags["class"]
    with Client(config) as client:
        sys.stdout.write(f"{client.call('CreateVolume', request).volume.volume_id}\n")
    return 0


def clone(config: Config, words: list[str], flags: dict[str, str]) -> int:
    """Make a volume that holds what a volume or a snapshot does."""
    source = _found(config, words[0])
    kind = "block" if source.block else source.fs_type
    request = csi.CreateVolumeRequest(name=words[1], volume_capabilities=[_capability(kind)])
    request.parameters[parameters.CLASS] = source.pool
    if isinstance(source, Snapshot):
        request.volume_content_source.snapshot.snapshot_id = source.id
    else:
        request.volume_content_source.volume.volume_id = source.id
    if "size" in flags:
        request.capacity_range.required_bytes = parameters.size(flags["size"], "--size")
    with Client(config) as client:
        sys.stdout.write(f"{client.call('CreateVolume', request).volume.volume_id}\n")
    return 0


def snapshot(config: Config, words: list[str], flags: dict[str, str]) -> int:
    """Keep what a volume holds now."""
    request = csi.CreateSnapshotRequest(name=words[1], source_volume_id=_volume(config, words[0]).id)
    with Client(config) as client:
        sys.stdout.write(f"{client.call('CreateSnapshot', request).snapshot.snapshot_id}\n")
    return 0


def expand(config: Config, words: list[str], flags: dict[str, str]) -> int:
    """Let a volume be larger, and its file system with it where it is mounted."""
    volume = _volume(config, words[0])
    request = csi.ControllerExpandVolumeRequest(volume_id=volume.id)
    request.capacity_range.required_bytes = parameters.size(words[1], "SIZE")
    with looking(config) as (_, store, _pools):
        uses = [one.id for one in store.all(Use) if one.volume == volume.id and one.staged]
    with Client(config) as client:
        answer = client.call("ControllerExpandVolume", request)
        for path in uses if answer.node_expansion_required else ():
            client.call("NodeExpandVolume", csi.NodeExpandVolumeRequest(volume_id=volume.id, volume_path=path))
    sys.stdout.write(f"{answer.capacity_bytes}\n")
    return 0


def delete(config: Config, words: list[str], flags: dict[str, str]) -> int:
    """Take a volume or a snapshot away."""
    thing = _found(config, words[0])
    with Client(config) as client:
        if isinstance(thing, Volume):
            client.call("DeleteVolume", csi.DeleteVolumeRequest(volume_id=thing.id))
        else:
            client.call("DeleteSnapshot", csi.DeleteSnapshotRequest(snapshot_id=thing.id))
    return 0


def mount(config: Config, words: list[str], flags: dict[str, str]) -> int:
    """Have a volume in a folder, until `unmount` or a reboot."""
    volume = _volume(config, words[0])
    if volume.block:
        raise Error("invalid", "is a block volume", subject=words[0])
    request = csi.NodeStageVolumeRequest(volume_id=volume.id, staging_target_path=os.path.abspath(words[1]))
    request.volume_capability.CopyFrom(_capability(""))
    with Client(config) as client:
        client.call("NodeStageVolume", request)
    return 0


def unmount(config: Config, words: list[str], flags: dict[str, str]) -> int:
    """Undo `mount`."""
    volume = _volume(config, words[0])
    request = csi.NodeUnstageVolumeRequest(volume_id=volume.id, staging_target_path=os.path.abspath(words[1]))
    with Client(config) as client:
        client.call("NodeUnstageVolume", request)
    return 0


def _found(config: Config, word: str) -> Volume | Snapshot:
    with looking(config) as (_, store, _pools):
        return find(store, word)


def _volume(config: Config, word: str) -> Volume:
    found = _found(config, word)
    if not isinstance(found, Volume):
        raise Error("invalid", "is a snapshot", subject=word)
    return found


def _capability(kind: str) -> csi.VolumeCapability:
    if kind == "block":
        return csi.VolumeCapability(access_mode=_MODE, block=csi.VolumeCapability.BlockVolume())
    return csi.VolumeCapability(access_mode=_MODE, mount=csi.VolumeCapability.MountVolume(fs_type=kind))
