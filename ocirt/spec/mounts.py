"""What `mounts` mean (config.md, "Mounts")."""

from __future__ import annotations

from ocirt.errors import Error
from ocirt.paths import clean
from ocirt.spec.mountoptions import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.spec.shape import Finding

# Files that lxcfs and the like put in the place of the kernel's. Any other mount below /proc would hide from the runtime, or from
# security modules, files that they write to. The executor looks at the real place again.
PROC_FILES = frozenset(
    (
        "/proc/cpuinfo",
        "/proc/diskstats",
        "/proc/loadavg",
        "/proc/meminfo",
        "/proc/slabinfo",
        "/proc/stat",
        "/proc/swaps",
        "/proc/sys/crypto/fips_enabled",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/uptime",
    ),
)


def check_mounts(spec: dict[str, Any], user_namespace: dict[str, Any] | None, rootless: bool, findings: list[Finding]) -> None:
    """Append the findings on `spec["mounts"]`; `user_namespace` is the entry in /linux/namespaces, if there is one."""
    for index, mount in enumerate(spec["mounts"]):
        pointer = f"/mounts/{index}"
        kind = mount.get("type", "")
        try:
            options = parse(mount.get("options") or [], kind, pointer)
        except Error as err:
            findings.append((err.subject, err.message, err.hint, "error"))
            continue
        destination = mount["destination"]
        if not destination:
            findings.append((pointer + "/destination", "is empty", "an absolute path in the container", "error"))
            continue
        if destination[0] != "/":
            hint = f'"/{destination}", as which it is taken'
            findings.append((pointer + "/destination", f'"{destination}" is not absolute, which is deprecated', hint, "warning"))
        if "proc" in destination:
            _below_proc(clean("/" + destination), kind, options["bind"], pointer, findings)
        if options["bind"]:
            if not mount.get("source"):
                hint = "the path to bind, absolute or relative to the bundle"
                findings.append((pointer + "/source", "a bind mount needs a source", hint, "error"))
        elif options["data"] and user_namespace and not user_namespace.get("path"):
            _owners(options["data"], spec["linux"], pointer, findings)
        if options["tmpcopyup"] and kind != "tmpfs":
            message = "tmpcopyup copies into a tmpfs only and is ignored here"
            findings.append((pointer + "/options", message, 'take it out, or make the type "tmpfs"', "warning"))
        if options["idmap"] or "uidMappings" in mount or "gidMappings" in mount:
            _id_mapped(mount, options["idmap"], options["bind"], user_namespace, rootless, pointer, findings)


def _below_proc(path: str, kind: str, bind: bool, pointer: str, findings: list[Finding]) -> None:
    if path == "/proc":
        # The source of a bind mount must be a procfs too; only the kernel can say so.
        if not bind and kind != "proc":
            hint = 'the type "proc", or a bind mount of another procfs'
            findings.append((pointer + "/type", f'/proc cannot be of the type "{kind}"', hint, "error"))
    elif path.startswith("/proc/") and path not in PROC_FILES:
        hint = "only these can be mounted over: " + ", ".join(sorted(PROC_FILES))
        findings.append((pointer + "/destination", f'"{path}" cannot be mounted because it is inside /proc', hint, "error"))


def _owners(data: list[str], linux: dict[str, Any], pointer: str, findings: list[Finding]) -> None:
    """The kernel takes uid= and gid= as ids of the container's user namespace."""
    for option in data:
        name, _, value = option.partition("=")
        if name in ("uid", "gid") and value.isascii() and value.isdecimal() and len(value) < 11:
            from ocirt.spec.mappings import mapped  # noqa: PLC0415  (few mounts have it)

            mappings = linux.get(name + "Mappings", ())
            if mappings and not mapped(mappings, int(value)):
                hint = f"take {option} out, or map {value} in /linux/{name}Mappings"
                findings.append((pointer + "/options", f"{option}: {value} is not mapped in the container", hint, "error"))


def _id_mapped(
    mount: dict[str, Any],
    idmap: str | None,
    bind: bool,
    user_namespace: dict[str, Any] | None,
    rootless: bool,
    pointer: str,
    findings: list[Finding],
) -> None:
    options = pointer + "/options"
    if not bind:
        findings.append((options, "only a bind mount can be id-mapped", 'add "bind", or take the mapping out', "error"))
    elif rootless:
        findings.append((options, "an id-mapped mount needs a runtime that is root", "take the mapping out", "error"))
    elif ("uidMappings" in mount) != ("gidMappings" in mount):
        there, lacking = ("uidMappings", "gidMappings") if "uidMappings" in mount else ("gidMappings", "uidMappings")
        findings.append((pointer, f'"{there}" without "{lacking}"', f'add "{lacking}"', "error"))
    elif "uidMappings" in mount:
        from ocirt.spec.mappings import check_mappings  # noqa: PLC0415  (few mounts have them)

        for name in ("uidMappings", "gidMappings"):
            if mount[name]:
                check_mappings(mount[name], f"{pointer}/{name}", findings)
            else:
                hint = '[{"containerID": 0, "hostID": 100000, "size": 65536}]'
                findings.append((f"{pointer}/{name}", "an id-mapped mount needs both uids and gids mapped", hint, "error"))
    elif not user_namespace:
        message = f"{idmap} needs mappings: the mount has none, and the container has no user namespace"
        hint = (
            f'add "uidMappings" and "gidMappings" to the mount, or {{"type": "user"}} to /linux/namespaces, or take {idmap} out'
        )
        findings.append((options, message, hint, "error"))
