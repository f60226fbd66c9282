"""The container's tree: propagation, root, mounts, devices, what is masked, and the step into it.

Everything is attached below the root by descriptor, before pivot_root(2): the host's tree is still in sight then, so that bind
sources, device nodes and /proc are the host's own and cannot be anything of the image's making.

Without a mount namespace of its own the container's tree hangs in the runtime's, on one mount (ocirt.kernel.steps.anchor), and
chroot(2) is the way in. No mount of the host's changes its propagation, and none of the container's is a peer of one of them.
"""

from __future__ import annotations

from errno import EEXIST, ENOENT, ENOTDIR, EPERM

from ocirt import paths
from ocirt.cgroups.devices import DEFAULTS
from ocirt.kernel import constants as k
from ocirt.plan import INIT, PARENT, id_lines, step
from ocirt.spec.mountoptions import MS_REC, PROPAGATION, parse
from ocirt.spec.mounts import PROC_FILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cgroups.layout import Layout
    from ocirt.plan import Errors, Host, Plan, Request, Step
    from ocirt.plan.namespaces import Namespaces

_LINKS = (("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"))
_MODE = 0o666
# Masked and read-only paths lie below: they must not be behind a link of the image, which could be changed meanwhile.
_EXACT = ("/proc", "/sys")
NOTIFY = "/run/notify"
MOUNTED = (
    "org.ocirt.image.writable"  # the annotation of a bundle whose root file system is mounted (ocirt_images.snapshots.owner)
)
# Have their labels from SELinux's policy, or as a file's own.
_UNLABELLED = ("proc", "sysfs", "mqueue", "cgroup", "cgroup2")


class Tree:
    """What the steps of one tree have in common."""

    __slots__ = ("anchor", "bundle", "by_parent", "notify", "overlay", "path", "place", "read_only", "spec")

    def __init__(self, spec: dict[str, Any], spaces: Namespaces, host: Host, request: Request) -> None:
        self.spec = spec
        self.bundle = request.bundle
        self.path = paths.clean(paths.join(request.bundle, spec["root"]["path"]))
        self.overlay = request.overlay
        self.place = self.path  # where init attaches the root
        # In its user namespace init may not reach what the runtime can: the parent clones those mounts for it.
        self.by_parent = spaces.has_user and host.root
        if self.overlay:
            from ocirt.plan import overlay  # noqa: PLC0415  (only then)

            overlay.check(self.overlay, spaces, host)
            self.by_parent = True
            if not overlay.is_looked_for(spec):
                self.place = "/"
        # The mount on which all others hang, where they are made in the runtime's mount namespace; else ""
        self.anchor = "" if spaces.has_mount else paths.anchor(request.directory)
        # What is mounted at /run/notify, or ""
        self.notify = request.directory + "/notify" if request.notify else ""
        # Mounts to be made read-only once everything that belongs into them is there: (slot, pointer)
        self.read_only: list[tuple[str, str]] = []


def sources(tree: Tree, spaces: Namespaces, host: Host) -> Plan:
    """The parent's part: look at the root, clone what init could not reach, and map the ids of mounts where that can be done."""
    made: dict[tuple[Any, Any], str] = {}
    plan: Plan = []
    if tree.place != "/":
        plan.append(step(PARENT, "tree.check_root", tree.path, at="/root/path"))
    if not tree.overlay and MOUNTED in (tree.spec.get("annotations") or {}):
        plan.append(step(PARENT, "tree.check_mounted", tree.path, at="/root/path"))
    if tree.anchor:
        plan.append(step(PARENT, "anchor.check", tree.path, at="/root/path"))
        plan.append(step(PARENT, "mount.clone", "root", tree.path, True, at="/root/path"))
        plan += _cut_off(tree, "root", spaces)
    if tree.by_parent:
        if tree.overlay:
            from ocirt.plan import overlay  # noqa: PLC0415  (only then)

            plan += overlay.make(tree.overlay, host, made)
        else:
            plan.append(step(PARENT, "mount.clone", "root", tree.path, True, at="/root/path"))
            plan += _cut_off(tree, "root", spaces)
        if tree.notify:
            plan.append(step(PARENT, "mount.clone", "notify", tree.notify, False))
            plan += _cut_off(tree, "notify", spaces)
    for index, mount in enumerate(tree.spec.get("mounts", ())):
        options = parse(mount.get("options") or [], mount.get("type", ""))
        mapped = _is_mapped(mount, options["idmap"])
        if not options["bind"] or not (tree.by_parent or mapped):
            continue
        slot, pointer = f"mount/{index}", f"/mounts/{index}"
        plan.append(step(PARENT, "mount.clone", slot, _source(tree, mount), options["recursive"], at=pointer + "/source"))
        plan += _cut_off(tree, slot, spaces)
        if not mapped or ("uidMappings" not in mount and "user" in spaces.new):
            continue
        if "uidMappings" in mount:
            maps = id_lines(mount["uidMappings"]), id_lines(mount["gidMappings"])
            if maps not in made:
                made[maps] = f"namespace/idmap/{len(made)}"
                plan.append(step(PARENT, "idmap.make_namespace", made[maps], *maps, at=pointer + "/uidMappings"))
            plan.append(_idmap(tree, mount, slot, made[maps], options["idmap"], pointer + "/uidMappings"))
        else:
            plan.append(_idmap(tree, mount, slot, "namespace/user", options["idmap"], pointer + "/options"))
    return plan


def _cut_off(tree: Tree, slot: str, spaces: Namespaces, side: str = PARENT) -> Plan:
    """Set the propagation of what is cloned from the host's tree: as init does for its copy of that tree.

    In a mount namespace with a user namespace of its own the kernel makes every mount a slave of the host's first
    (mount_namespaces(7)); what comes in by descriptor would stay the host's peer, and the container could mount there. So it is
    without a mount namespace, and what is unmounted at the end would be unmounted there, too.
    """
    pointer = "/linux/rootfsPropagation"
    propagation = _host_propagation(tree.spec)
    no_peer = spaces.has_user or bool(tree.anchor)
    plan = []
    if no_peer and not propagation & k.MS_PRIVATE:
        plan.append(step(side, "mount.propagate", slot, k.MS_SLAVE, True, at=pointer))
    if not no_peer or not propagation & k.MS_SLAVE:
        plan.append(step(side, "mount.propagate", slot, propagation & ~MS_REC, True, at=pointer))
    return plan


def _clone(tree: Tree, slot: str, source: str, recursive: bool, spaces: Namespaces, pointer: str = "") -> Plan:  # noqa: FBT001
    """A detached copy of a part of the host's tree, made by init."""
    plan = [step(INIT, "mount.clone", slot, source, recursive, at=pointer)]
    return plan + _cut_off(tree, slot, spaces, INIT) if tree.anchor else plan


def anchor(tree: Tree) -> Plan:
    """Attach the root in the runtime's mount namespace, where the container has none: the parent's part.

    The kernel makes what is attached on a shared mount shared, in groups of its own: the container's mounts come and go wherever
    the host's are followed. Where config.json asks for another propagation, the anchor keeps them back: what is not shared any
    more would not go.
    """
    if not tree.anchor:
        return []
    attributes = k.MOUNT_ATTR_RDONLY | k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOEXEC
    options = (("mode", "755"), ("nr_inodes", "2"))
    plan = [
        step(PARENT, "mount.new", "anchor", "tmpfs", tree.anchor, options, attributes, at="/root/path"),
        step(PARENT, "anchor.attach", tree.path, tree.anchor, at="/root/path"),
    ]
    if _asks_for_less_than_shared(tree.spec):
        plan.append(step(PARENT, "mount.propagate", "anchor", k.MS_PRIVATE, False, at="/linux/rootfsPropagation"))
    return [*plan, step(PARENT, "anchor.attach_root", at="/root/path")]


def _asks_for_less_than_shared(spec: dict[str, Any]) -> bool:
    asked = [PROPAGATION[spec["linux"].get("rootfsPropagation") or "shared"]]
    for mount in spec.get("mounts", ()):
        asked += parse(mount.get("options") or [], mount.get("type", ""))["propagation"]
    return not all(flag & k.MS_SHARED for flag in asked)


def _is_mapped(mount: dict[str, Any], idmap: str | None) -> bool:
    return bool(idmap) or "uidMappings" in mount


def _idmap(tree: Tree, mount: dict[str, Any], slot: str, user: str, kind: str | None, pointer: str) -> Step:
    return step(PARENT, "idmap.map", slot, _source(tree, mount), user, kind == "ridmap", at=pointer)


def id_maps(tree: Tree, spaces: Namespaces) -> Plan:
    """Map the ids of mounts as the container's new user namespace does; it has to be there by then."""
    plan: Plan = []
    if "user" in spaces.new:
        for index, mount in enumerate(tree.spec.get("mounts", ())):
            kind = parse(mount.get("options") or [], mount.get("type", ""))["idmap"]
            if kind and "uidMappings" not in mount:
                plan.append(_idmap(tree, mount, f"mount/{index}", "", kind, f"/mounts/{index}/options"))
    return plan


def _source(tree: Tree, mount: dict[str, Any]) -> str:
    return paths.join(tree.bundle, mount["source"])


def root(tree: Tree) -> Plan:
    """Cut the tree off from the host's, and make the root a mount."""
    if tree.anchor:
        return []  # the parent has done it
    pointer = "/linux/rootfsPropagation"
    propagation = _host_propagation(tree.spec)
    plan = [step(INIT, "mount.propagate_host", propagation & ~MS_REC, bool(propagation & MS_REC), at=pointer)]
    if propagation & k.MS_SHARED or not propagation & MS_REC:
        plan.append(step(INIT, "tree.make_parent_private", tree.place, at=pointer))
    if not tree.by_parent:
        plan.append(step(INIT, "mount.clone", "root", tree.path, True, at="/root/path"))
    plan.append(step(INIT, "tree.attach_root", tree.place, at="/root/path"))
    return plan


def _shared_cgroups(layout: Layout, cgroup_paths: dict[str, str]) -> dict[str, str]:
    """Controller to the runtime's own directory, in hierarchies of version 1 in which the container gets none."""
    found = {}
    for controller, place in layout.mounts.items():
        if controller and controller not in cgroup_paths:
            own = layout.own.get(controller, "/")
            found[controller] = place if own == "/" or ".." in own.split("/") else place + own
    return found


def _host_propagation(spec: dict[str, Any]) -> int:
    """MS_* for the host's tree, as the container sees it."""
    propagation = PROPAGATION[spec["linux"].get("rootfsPropagation") or "rslave"]
    if propagation & k.MS_UNBINDABLE:
        propagation ^= k.MS_UNBINDABLE | k.MS_PRIVATE  # of the host's tree the container's is still to be cloned
    return propagation


def mounts(tree: Tree, spaces: Namespaces, cgroup_paths: dict[str, str], host: Host) -> Plan:
    """`mounts`, in their order."""
    plan: Plan = []
    label = tree.spec["linux"].get("mountLabel")
    for index, mount in enumerate(tree.spec.get("mounts", ())):
        pointer = f"/mounts/{index}"
        kind, target = mount.get("type", ""), paths.clean("/" + mount["destination"])
        options = parse(mount.get("options") or [], kind, pointer)
        slot, recursive = f"mount/{index}", options["rec_set"]
        if options["bind"]:
            if not (tree.by_parent or _is_mapped(mount, options["idmap"])):
                plan += _clone(tree, slot, _source(tree, mount), options["recursive"], spaces, pointer + "/source")
            if options["attr_set"] or options["attr_clear"]:
                plan.append(
                    step(INIT, "mount.change", slot, options["attr_set"], options["attr_clear"], False, at=pointer + "/options")
                )
            if recursive or options["rec_clear"]:
                plan.append(step(INIT, "mount.change", slot, recursive, options["rec_clear"], True, at=pointer + "/options"))
            plan.append(step(INIT, "mount.attach", slot, target, target in _EXACT, target in PROC_FILES, at=pointer))
        elif options["remount"]:
            plan.append(step(INIT, "mount.remount", slot, target, options["attr_set"], options["attr_clear"], at=pointer))
        elif _shows_cgroups(kind, host.layout.mode, spaces):
            plan.append(
                step(
                    INIT,
                    "mount.cgroup",
                    slot,
                    target,
                    host.layout.mode,
                    host.layout.mounts,
                    cgroup_paths,
                    _shared_cgroups(host.layout, cgroup_paths),
                    "cgroup" in spaces.new,
                    options["attr_set"],
                    at=pointer,
                )
            )
        else:
            data = [
                (name, value if equals else None) for name, equals, value in (item.partition("=") for item in options["data"])
            ]
            data += [(name, None) for name in options["superblock"]]
            attributes = options["attr_set"]
            if (attributes | recursive) & k.MOUNT_ATTR_RDONLY and kind == "tmpfs":
                attributes &= ~k.MOUNT_ATTR_RDONLY  # until the targets below it are made
                recursive &= ~k.MOUNT_ATTR_RDONLY
                tree.read_only.append((slot, pointer + "/options"))
            if label and kind not in _UNLABELLED:
                data.append(("context", label))
            source = mount.get("source") or kind
            plan.append(step(INIT, "mount.new", slot, kind, source, tuple(data), attributes, at=pointer))
            if options["tmpcopyup"] and kind == "tmpfs":
                plan.append(step(INIT, "mount.copy_up", slot, target, at=pointer + "/options"))
            exact = target in _EXACT or kind in ("proc", "sysfs")
            plan.append(step(INIT, "mount.attach", slot, target, exact, target in PROC_FILES, at=pointer))
            if label and kind == "mqueue":
                plan.append(step(INIT, "label.set_file", slot, label, at="/linux/mountLabel"))
        if not options["bind"] and (recursive or options["rec_clear"]):
            plan.append(step(INIT, "mount.change", slot, recursive, options["rec_clear"], True, at=pointer + "/options"))
        for flag in options["propagation"]:
            plan.append(step(INIT, "mount.propagate", slot, flag & ~MS_REC, bool(flag & MS_REC), at=pointer + "/options"))
    return plan


def _shows_cgroups(kind: str, mode: str, spaces: Namespaces) -> bool:
    """Whether a mount shows the container's cgroups as the host has them; else it is of a file system like any other.

    A cgroup2 that is mounted in the host's cgroup namespace gives its options to all of them: the host would lose `nsdelegate`
    and `memory_recursiveprot` (kernel/cgroup/cgroup.c, apply_cgroup_root_flags).
    """
    return kind == "cgroup" or (kind == "cgroup2" and not (mode == "v2" and "cgroup" in spaces.new))


def notify(tree: Tree, spaces: Namespaces) -> Plan:
    """The socket by which the program says that it is ready (sd_notify(3)), where the caller has asked for that."""
    if not tree.notify:
        return []
    attributes = k.MOUNT_ATTR_RDONLY | k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOEXEC
    return [
        *([] if tree.by_parent else _clone(tree, "notify", tree.notify, False, spaces)),
        step(INIT, "mount.change", "notify", attributes, 0, False),
        step(INIT, "mount.attach", "notify", NOTIFY, False, False),
    ]


def devices(tree: Tree, spaces: Namespaces, host: Host) -> Plan:
    """The nodes and links of /dev, unless a bind mount brings a /dev of its own."""
    for mount in tree.spec.get("mounts", ()):
        options = mount.get("options") or ()
        if paths.clean("/" + mount["destination"]) == "/dev" and ("bind" in options or "rbind" in options):
            return []
    plan = [step(INIT, "device.open_directory", at="/linux/devices")]
    given = {paths.clean(device["path"]): index for index, device in enumerate(tree.spec["linux"].get("devices", ()))}
    bound = spaces.has_user or host.user_namespace or not host.root  # mknod(2) is for the first user namespace alone
    for path, _, major, minor, _ in DEFAULTS:
        if path and path not in given:
            plan.append(_device(path, "c", major, minor, _MODE, 0, 0, "", bound=bound))
    for path, index in given.items():
        device = tree.spec["linux"]["devices"][index]
        plan.append(
            _device(
                path,
                device["type"],
                device.get("major", 0),
                device.get("minor", 0),
                device.get("fileMode", _MODE) & 0o7777,
                device.get("uid", 0),
                device.get("gid", 0),
                f"/linux/devices/{index}",
                bound=bound,
            )
        )
    there: Errors = {EEXIST: None}
    plan += [step(INIT, "device.link", name, target, at="/linux/devices", errors=there) for name, target in _LINKS]
    plan += [
        step(INIT, "device.link_core", at="/linux/devices", errors={EEXIST: None, ENOENT: None}),
        step(INIT, "device.link_ptmx", at="/linux/devices"),
    ]
    return plan


def _device(path: str, kind: str, major: int, minor: int, mode: int, uid: int, gid: int, pointer: str, *, bound: bool) -> Any:
    there: Errors = {EEXIST: None}
    pointer = pointer or "/linux/devices"
    if kind == "p":
        return step(INIT, "device.make", path, kind, 0, 0, mode, uid, gid, at=pointer, errors=there)
    if bound:
        return step(INIT, "device.bind", path, at=pointer)
    # Nested in a container that may not make nodes.
    there = {EEXIST: None, EPERM: ("device.bind", (path,))}
    return step(INIT, "device.make", path, kind, major, minor, mode, uid, gid, at=pointer, errors=there)


def finish(tree: Tree) -> Plan:
    """What comes after the hooks that may still change the tree."""
    spec = tree.spec
    linux = spec["linux"]
    plan: Plan = []
    cwd = paths.clean(spec["process"]["cwd"])
    if cwd != "/":
        plan.append(step(INIT, "tree.make_directory", cwd, at="/process/cwd"))
    for name, value in linux.get("sysctl", {}).items():
        from ocirt.spec.sysctl import proc_path  # noqa: PLC0415  (only if the section is there)

        pointer = "/linux/sysctl/" + name.replace("~", "~0").replace("/", "~1")
        plan.append(step(INIT, "tree.sysctl", proc_path(name), value, at=pointer))
    missing: Errors = {ENOENT: None, ENOTDIR: None}
    for index, path in enumerate(linux.get("readonlyPaths", ())):
        plan.append(step(INIT, "mount.read_only", path, at=f"/linux/readonlyPaths/{index}", errors=missing))
    if linux.get("mountLabel"):
        plan.append(step(INIT, "label.mask", linux["mountLabel"], at="/linux/mountLabel"))
    for index, path in enumerate(linux.get("maskedPaths", ())):
        plan.append(step(INIT, "mount.mask", path, at=f"/linux/maskedPaths/{index}", errors=missing))
    for slot, pointer in tree.read_only:
        plan.append(step(INIT, "mount.change", slot, k.MOUNT_ATTR_RDONLY, 0, False, at=pointer))
    if spec["root"].get("readonly") or (tree.overlay and tree.overlay.read_only):
        pointer = "/root/readonly" if spec["root"].get("readonly") else "/root"
        plan.append(step(INIT, "mount.change", "root", k.MOUNT_ATTR_RDONLY, 0, False, at=pointer))
    return plan


def enter(tree: Tree, request: Request) -> Plan:
    """Make the tree the root of init."""
    if tree.anchor or (tree.place == "/" and not request.pivot):
        plan = [step(INIT, "process.change_root", "root", at="/root")]  # it covers what is left behind
    else:
        plan = [step(INIT, "tree.pivot" if request.pivot else "tree.move_root", at="/root")]
    flag = PROPAGATION.get(tree.spec["linux"].get("rootfsPropagation") or "", 0)
    if flag & (k.MS_SHARED | k.MS_UNBINDABLE):
        plan.append(step(INIT, "mount.propagate_root", flag & ~MS_REC, bool(flag & MS_REC), at="/linux/rootfsPropagation"))
    return plan
