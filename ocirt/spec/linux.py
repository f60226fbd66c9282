"""What `linux` means: namespaces, id mappings, masked paths; the other subjects are called from here when they are there.

Sources: config-linux.md of the runtime specification, user_namespaces(7), and what runc refuses.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ocirt.spec.shape import Finding

_LIMIT = 340  # lines that /proc/PID/uid_map takes
_UNSUPPORTED = ("netDevices", "intelRdt", "memoryPolicy", "personality", "timeOffsets", "mountLabel")


def namespaces(linux: dict[str, Any], findings: list[Finding]) -> dict[str, dict[str, Any]]:
    """The entries of `linux.namespaces` by type; appends the findings on them."""
    out: dict[str, dict[str, Any]] = {}
    for index, entry in enumerate(linux.get("namespaces", ())):
        kind = entry["type"]
        if kind in out:
            message = f'a second namespace of the type "{kind}"'
            findings.append((f"/linux/namespaces/{index}", message, "one entry a type: take one of them out", "error"))
            continue
        out[kind] = entry
        path = entry.get("path")
        if path and path[0] != "/":
            hint = f'an absolute path on the host, such as "/proc/PID/ns/{kind}", or no path for a new namespace'
            findings.append((f"/linux/namespaces/{index}/path", f'"{path}" is not an absolute path', hint, "error"))
    if "mount" not in out:
        message = "there is no mount namespace: the container's mounts would be made on the host"
        findings.append(("/linux/namespaces", message, 'add {"type": "mount"}', "error"))
    return out


def check_linux(spec: dict[str, Any], types: dict[str, dict[str, Any]], rootless: bool, findings: list[Finding]) -> None:
    """Append the findings on `spec["linux"]`; `types` are its namespaces by type."""
    linux = spec["linux"]
    user = types.get("user")
    if user or "uidMappings" in linux or "gidMappings" in linux:
        _user_namespace(spec, user, rootless, findings)
    elif rootless:
        message = "a container of a user who is not root needs a user namespace"
        hint = 'add {"type": "user"} here and "uidMappings" and "gidMappings" in /linux, as `ocirt spec --rootless` does'
        findings.append(("/linux/namespaces", message, hint, "error"))
    for name in ("maskedPaths", "readonlyPaths"):
        for index, path in enumerate(linux.get(name, ())):
            if path[:1] != "/":
                message = f'"{path}" is not an absolute path'
                findings.append((f"/linux/{name}/{index}", message, f'seen from the container: "/{path}"', "error"))
    if sysctl := linux.get("sysctl"):
        from ocirt.spec.sysctl import check_sysctl  # noqa: PLC0415  (only if the section is there)

        check_sysctl(sysctl, types, findings)
    if devices := linux.get("devices"):
        from ocirt.spec.devices import check_devices  # noqa: PLC0415

        check_devices(devices, findings)
    if resources := linux.get("resources"):
        # Callers send rules for devices in every spec; the rest has a module of its own.
        for index, rule in enumerate(resources.get("devices", ())):
            access = rule.get("access", "")
            if not access or access.strip("rwm") or rule.get("type", "a") not in ("a", "b", "c") or "major" in rule or "minor" in rule:
                from ocirt.spec.devices import check_rule  # noqa: PLC0415

                check_rule(rule, f"/linux/resources/devices/{index}", findings)
        if len(resources) > ("devices" in resources):
            from ocirt.spec.resources import check_resources  # noqa: PLC0415

            check_resources(resources, "/linux/resources", findings)
    if seccomp := linux.get("seccomp"):
        from ocirt.spec.seccomp import check_seccomp  # noqa: PLC0415

        check_seccomp(seccomp, "/linux/seccomp", findings)
    for name in _UNSUPPORTED:
        if name in linux:
            _unsupported(linux, name, types, findings)


def mapped(mappings: Iterable[dict[str, int]], number: int) -> bool:
    """Whether the id `number` of the container has one on the host."""
    return any(entry["containerID"] <= number < entry["containerID"] + entry["size"] for entry in mappings)


def _user_namespace(spec: dict[str, Any], user: dict[str, Any] | None, rootless: bool, findings: list[Finding]) -> None:
    linux = spec["linux"]
    process_user = spec["process"].get("user", {})
    for kind in ("uid", "gid"):
        name = kind + "Mappings"
        pointer = "/linux/" + name
        mappings = linux.get(name, ())
        if not user:
            if mappings:
                hint = 'add {"type": "user"} to /linux/namespaces, or take the mappings out'
                findings.append((pointer, "mappings without a user namespace", hint, "error"))
            continue
        before = len(findings)
        _mappings(mappings, pointer, findings)
        if user.get("path"):
            if mappings:
                message = "has no effect: the namespace that is joined has mappings already"
                findings.append((pointer, message, "leave it out; it must be the same as that namespace's", "warning"))
        elif not mappings:
            hint = '[{"containerID": 0, "hostID": 100000, "size": 65536}], or a path of a user namespace to join'
            findings.append((pointer, f"a new user namespace needs a mapping of {kind}s", hint, "error"))
        elif len(findings) == before:
            wanted = [(0, pointer)]
            if kind in process_user:
                wanted.append((process_user[kind], f"/process/user/{kind}"))
            if kind == "gid":
                wanted += [(gid, f"/process/user/additionalGids/{i}") for i, gid in enumerate(process_user.get("additionalGids", ()))]
            for number, place in wanted:
                if not mapped(mappings, number):
                    hint = f'a {kind} that {pointer} maps, or a mapping that has "containerID": {number}'
                    findings.append((place, f"{kind} {number} of the container is not mapped", hint, "error"))
    if rootless and process_user.get("additionalGids"):
        message = "a user who is not root cannot set groups"
        findings.append(("/process/user/additionalGids", message, "leave it out", "error"))


def _mappings(mappings: list[dict[str, int]], pointer: str, findings: list[Finding]) -> None:
    """What the kernel refuses: kernel/user_namespace.c, map_write()."""
    if len(mappings) > _LIMIT:
        findings.append((pointer, f"has {len(mappings)} entries", f"at most {_LIMIT}, which is what the kernel takes", "error"))
        return
    for index, entry in enumerate(mappings):
        place = f"{pointer}/{index}"
        size = entry["size"]
        if size == 0:
            findings.append((place + "/size", "maps no ids", "1 or more, such as 65536", "error"))
            return
        for name in ("containerID", "hostID"):
            if entry[name] + size > 0xFFFFFFFF:
                hint = f"at most {0xFFFFFFFF - entry[name]}" if entry[name] < 0xFFFFFFFF else f"a smaller {name}"
                findings.append((place + "/size", f"{name} + size goes beyond the last id, 4294967294", hint, "error"))
                return
    for name in ("containerID", "hostID"):
        order = sorted((entry[name], entry["size"], index) for index, entry in enumerate(mappings))
        for (first, size, one), (start, _, other) in zip(order, order[1:]):  # noqa: B905  (of one length but for the last)
            if start < first + size:
                hint = f"each id once: {name} from {first + size} on, or a smaller size in {pointer}/{one}"
                findings.append((f"{pointer}/{other}/{name}", f"overlaps with {pointer}/{one}", hint, "error"))
                return


def _unsupported(linux: dict[str, Any], name: str, types: dict[str, dict[str, Any]], findings: list[Finding]) -> None:
    pointer = "/linux/" + name
    section = linux[name]
    if name == "timeOffsets":
        if section and "time" not in types:
            hint = 'add {"type": "time"} to /linux/namespaces'
            findings.append((pointer, "offsets without a time namespace", hint, "error"))
            return
        section = any(value for clock in section.values() for value in clock.values())
    elif name in ("intelRdt", "memoryPolicy", "personality"):
        section = True  # an empty one asks for something too
    if section:
        from ocirt.spec.unsupported import refuse  # noqa: PLC0415  (only if the section is there)

        refuse(name, pointer, findings)
