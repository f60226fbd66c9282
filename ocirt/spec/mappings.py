"""`uidMappings` and `gidMappings`, of the container and of mounts (user_namespaces(7)). Loaded only if there are any."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ocirt.spec.shape import Finding

_LIMIT = 340  # lines that /proc/PID/uid_map takes


def mapped(mappings: Iterable[dict[str, int]], number: int) -> bool:
    """Whether the id `number` of the container has one on the host."""
    return any(entry["containerID"] <= number < entry["containerID"] + entry["size"] for entry in mappings)


def check_user_namespace(spec: dict[str, Any], user: dict[str, Any] | None, rootless: bool, findings: list[Finding]) -> None:
    """Append the findings; `user` is the entry of the user namespace in /linux/namespaces, None if there is none."""
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
        check_mappings(mappings, pointer, findings)
        if user.get("path"):
            if mappings:
                message = "has no effect: the namespace that is joined has mappings already"
                findings.append((pointer, message, "leave it out; it must be the same as that namespace's", "warning"))
        elif not mappings:
            hint = '[{"containerID": 0, "hostID": 100000, "size": 65536}], or a path of a user namespace to join'
            findings.append((pointer, f"a new user namespace needs a mapping of {kind}s", hint, "error"))
        elif len(findings) == before:
            # The container is set up as its root, who owns its files.
            wanted = {0: pointer}
            wanted.setdefault(process_user.get(kind, 0), f"/process/user/{kind}")
            if kind == "gid":
                for index, gid in enumerate(process_user.get("additionalGids", ())):
                    wanted.setdefault(gid, f"/process/user/additionalGids/{index}")
            for number, place in wanted.items():
                if not mapped(mappings, number):
                    hint = f'a {kind} that {pointer} maps, or a mapping that has "containerID": {number}'
                    findings.append((place, f"{kind} {number} of the container is not mapped", hint, "error"))
    if rootless and process_user.get("additionalGids"):
        message = "a user who is not root cannot set groups"
        findings.append(("/process/user/additionalGids", message, "leave it out", "error"))


def check_mappings(mappings: list[dict[str, int]], pointer: str, findings: list[Finding]) -> None:
    """Append the findings on what the kernel refuses: kernel/user_namespace.c, map_write()."""
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
        for (first, size, one), (start, _, other) in zip(order, order[1:]):  # noqa: B905  (itertools is one more module)
            if start < first + size:
                hint = f"each id once: ids {first} to {first + size - 1} are taken by {pointer}/{one}"
                findings.append((f"{pointer}/{other}/{name}", f"overlaps with {pointer}/{one}", hint, "error"))
                return
