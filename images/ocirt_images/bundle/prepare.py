"""`ocirt run --image`: a bundle for one container, in a mount namespace of the runtime's own process.

    writable/N/fs, work         what the container writes; volatile, so that no end of a container waits for a disk
    writable/N/bundle/          its bundle: config.json, and rootfs, where the image is mounted for this process and its children

It all goes by one removal. An attached container's is removed by who ran it; a detached one's stays until `ocirt prune` finds
that the runtime has no container of that ID any more, and so does what a killed runtime leaves.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_images.bundle.write import ROOTFS, Image, Undo, check, write_config
from ocirt_images.errors import Error
from ocirt_images.snapshots import ANNOTATION, Owner, Snapshots, Writable, attach, copy_layers, detach
from ocirt_images.snapshots.namespace import enter_mounts, enter_user, is_host_root, own_mappings
from ocirt_images.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from ocirt_images.bundle.options import Options


@dataclass(slots=True)
class Prepared:
    """A bundle that is ready to be run by this process.

    bundle: its directory; owner: the container; root: of the store; mounted: whether its rootfs is a mount and no copy
    """

    bundle: Path
    owner: Owner
    root: Path
    mounted: bool
    _store: Store | None

    def release(self) -> None:
        """The runtime has a state directory for the container now, which keeps the bundle: the store is not held any longer.

        While a container runs nothing of the store is open, so a repair does not wait for it.
        """
        if self._store is not None:
            self._store.close()
            self._store = None

    def remove(self) -> None:
        """Remove the bundle, with what the container wrote. Raises Error, OSError."""
        self.release()
        if self.mounted:
            detach(self.bundle / ROOTFS)
        with Store.open(self.root, recover=False) as store:
            store.writables.delete(self.owner.key)


def enter(options: Options) -> Options:
    """Leave the host's mount namespace, and as a user become root of a user namespace; before the store is opened.

    The options as they are to be from then on. The process must have no other thread. Raises Error("unsupported"), OSError.
    """
    if os.geteuid() == 0:
        enter_mounts()
        return options.with_privileges(None, unprivileged=not is_host_root())
    mappings = own_mappings()
    enter_user(mappings)
    return options.with_privileges(mappings, unprivileged=True, entered=True)


def prepare_run(root: Path, name: str, container: str, state_root: str, options: Options, size: int = 0) -> Prepared:
    """A bundle for container `container` of the image `name` in the store at `root`.

    The process is in namespaces of its own already (`enter`). state_root: the runtime's state directory, by which it is found
    later whether the container is still there. size: what it may write, in bytes; 0: no limit.
    Raises Error, OSError, with nothing left.
    """
    store = Store.open(root)
    try:
        image = Image.find(store, name)
        check(image, options)
        snapshots = Snapshots(store)
        owner = Owner.container(container, state_root)
        with Undo() as undo:
            writable = snapshots.create(owner, image.chain_id, size)
            undo.add(lambda: snapshots.remove(writable))
            bundle = writable.bundle
            bundle.mkdir(0o711)
            mounted = _mount(snapshots, image, writable)
            if mounted:
                undo.add(lambda: detach(bundle / ROOTFS))
            # The runtime asks for a mount where it finds the annotation.
            write_config(image, bundle, options.with_annotation(ANNOTATION, str(writable.record.id)) if mounted else options)
    except BaseException:
        store.close()
        raise
    return Prepared(bundle, owner, root, mounted, store)


def _mount(snapshots: Snapshots, image: Image, writable: Writable) -> bool:
    """Mount the image at the bundle's rootfs. False: it was copied, as overlayfs is for root alone here (before Linux 5.11)."""
    rootfs = writable.bundle / ROOTFS
    try:
        mount = snapshots.mount(image.chain_id, writable, volatile=True)
    except Error as err:
        if err.code != "unsupported" or is_host_root():
            raise
        copy_layers(snapshots.layers(image.chain_id), rootfs)
        return False
    try:
        rootfs.mkdir(0o755)
        attach(mount, rootfs)
    finally:
        os.close(mount)
    return True
