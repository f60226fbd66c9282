"""A root that is an overlay of its own: made for this container, handed to init as a descriptor, and never in the host's tree.

Init attaches it over `/` of its mount namespace, which is there whatever the host looks like, hides nothing, and can be reached
without a way through directories that are closed to a user namespace's root. What lies over `/` is seen by nobody whose root is
below, but for a path that goes up from there (`/..`), which a symlink of the host's may contain. So bind sources are looked up by
the parent, in the host's tree, before there is an overlay in anybody's.

Hooks are the exception: they look for the root where config.json has it, so there it is attached if there are any.
"""

from __future__ import annotations

from errno import EINVAL

from ocirt.errors import Error
from ocirt.kernel import constants as k
from ocirt.plan import PARENT, id_lines, step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from ocirt.plan import Host, Plan
    from ocirt.plan.namespaces import Namespaces

_MOST = 499  # layers below: the kernel takes 500 (fs/overlayfs/params.h, OVL_MAX_STACK), of which one may be the empty one
# What a kernel's configuration could decide otherwise. Redirects and metadata-only copies that an image brings would lead to
# anything in the layers below (Documentation/filesystems/overlayfs.rst); inode numbers are those of the layers.
OPTIONS: tuple[tuple[str, str | None], ...] = (
    ("index", "off"),
    ("metacopy", "off"),
    ("redirect_dir", "nofollow"),
    ("xino", "off"),
)
# They look at the container's root by a path of the host's.
_LOOKING = ("prestart", "createRuntime", "createContainer")
_EMPTY = "lower/empty"


class Overlay:
    """What a root is made of.

    lowers: directories of the host's, the topmost first. upper, work: where changes go, beside each other on one mount, or "" for
    a root that cannot change. volatile: nothing is synced, which makes `upper` useless for another mount until the directory
    `work/incompat/volatile` in `work` is removed. read_only: as /root/readonly, once all that config.json wants is there.
    uids, gids: as `uidMappings` of config.json. On disk the layers, upper too, have the ids of an image; in the overlay those
    that they are mapped to, which are then the ones of a container with a user namespace of the same mappings.
    """

    __slots__ = ("gids", "lowers", "read_only", "uids", "upper", "volatile", "work")

    def __init__(
        self,
        lowers: Sequence[str],
        upper: str = "",
        work: str = "",
        *,
        volatile: bool = False,
        read_only: bool = False,
        uids: Iterable[dict[str, int]] = (),
        gids: Iterable[dict[str, int]] = (),
    ) -> None:
        self.lowers = tuple(lowers)
        self.upper = upper
        self.work = work
        self.volatile = volatile
        self.read_only = read_only
        self.uids = id_lines(uids)
        self.gids = id_lines(gids)


def check(overlay: Overlay, spaces: Namespaces, host: Host) -> None:
    """Raise Error for what cannot be had."""
    if not host.root:
        raise Error("unsupported", "an overlay as the root needs root", subject="/root", hint="give a directory as /root/path")
    if "mount" not in spaces.new:
        hint = 'add {"type": "mount"}, without a path, to /linux/namespaces'
        raise Error("unsupported", "an overlay as the root needs a mount namespace of its own", subject="/root", hint=hint)
    if len(overlay.lowers) > _MOST:
        raise Error("unsupported", f"{len(overlay.lowers)} layers", subject="/root", hint=f"overlayfs takes {_MOST}")
    if bool(overlay.upper) != bool(overlay.work) or (overlay.volatile and not overlay.upper):
        raise Error("invalid", "an overlay has both an upper and a work directory, or neither", subject="/root")
    if bool(overlay.uids) != bool(overlay.gids):
        raise Error("invalid", "an overlay has mappings of both uids and gids, or none", subject="/root")
    for path in (*overlay.lowers, *((overlay.upper, overlay.work) if overlay.upper else ())):
        if not path.startswith("/"):
            raise Error("invalid", f"{path!r}: not an absolute path", subject="/root")


def is_looked_for(spec: dict[str, Any]) -> bool:
    """Whether somebody will look for the root at its path."""
    hooks = spec.get("hooks") or {}
    return any(hooks.get(kind) for kind in _LOOKING)


def make(overlay: Overlay, host: Host, made: dict[tuple[Any, Any], str]) -> Plan:
    """The parent's steps up to a detached mount in the slot `root`; `made`: slots of user namespaces by their mappings."""
    at = "/root/path"
    plan: Plan = []
    user = ""
    maps = overlay.uids, overlay.gids
    if overlay.uids:
        if maps not in made:
            made[maps] = f"namespace/idmap/{len(made)}"
            plan.append(step(PARENT, "idmap.make_namespace", made[maps], *maps, at="/linux/uidMappings"))
        user = made[maps]
    plan.append(step(PARENT, "overlay.open_lowers", overlay.lowers, user, at=at))
    if len(overlay.lowers) < (1 if overlay.upper else 2):
        # overlayfs wants one, or two for what cannot be written to; and one layer alone, bound, would show its whiteouts.
        options = (("nr_inodes", "2"), ("mode", "755"))
        plan.append(step(PARENT, "mount.new", _EMPTY, "tmpfs", "tmpfs", options, k.MOUNT_ATTR_RDONLY, at=at))
    if overlay.upper:
        plan.append(step(PARENT, "overlay.open_upper", overlay.upper, overlay.work, user, at=at))
    data = OPTIONS
    if host.user_namespace:
        data += (("userxattr", None),)  # overlayfs' own marks are then those that a user may set
    if overlay.volatile:
        data += (("volatile", None),)
    # What overlayfs makes in `work` has to have an owner that is mapped.
    owner = (overlay.uids[0][1], overlay.gids[0][1]) if overlay.uids and overlay.upper else ()
    apart = ("overlay.new_apart", ("root", overlay.lowers, overlay.upper, overlay.work, user, owner, data))
    plan.append(step(PARENT, "overlay.new", "root", owner, data, at=at, errors={EINVAL: apart}))
    return plan
