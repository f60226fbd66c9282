"""Judge a config.json: its shape first, then what it means. Nothing is looked at but the document itself."""

from __future__ import annotations

from ocirt.spec.process import check_process
from ocirt.spec.shape import SPEC, Findings, TooManyError, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.spec.shape import Finding

_DENY_ALL = {"allow": False, "access": "rwm"}  # the one rule that every caller sends
_HOST_NAME_MAX = 64  # bytes, sethostname(2)
_SECOND = 1_000_000_000  # nanoseconds


def check(spec: Any, rootless: bool = False) -> list[Finding]:
    """The findings on a document, the most basic first: (JSON pointer, message, hint, "error" or "warning").

    `rootless`: the runtime is not root. Members that are null are removed from `spec`. After an error in the shape the meaning is
    not looked at.
    """
    findings = Findings()
    try:
        _check(spec, rootless, findings)
    except TooManyError:
        pass  # enough is known
    return findings


def _check(spec: Any, rootless: bool, findings: list[Finding]) -> None:
    walk(spec, SPEC, "", findings)
    for finding in findings:
        if finding[3] == "error":
            return
    _version(spec["ociVersion"], findings)
    found = len(findings)
    for name, hint in (
        ("process", '"process": {"args": ["sh"], "cwd": "/"}'),
        ("root", '"root": {"path": "rootfs"}'),
        ("linux", '"linux": {"namespaces": [{"type": "mount"}, …]}'),
    ):
        if name not in spec:
            findings.append(("", f'lacks "{name}"', hint, "error"))
    if len(findings) > found:
        return
    if not spec["root"]["path"]:
        findings.append(("/root/path", "is empty", 'a directory, absolute or relative to the bundle, such as "rootfs"', "error"))
    check_process(spec["process"], "/process", findings)
    types = _namespaces(spec["linux"], rootless, findings)
    for name in ("hostname", "domainname"):
        if value := spec.get(name):
            if "uts" not in types:
                message = f"a {name} needs a UTS namespace: the host's would change"
                findings.append(("/" + name, message, 'add {"type": "uts"} to /linux/namespaces', "error"))
            elif len(value.encode()) > _HOST_NAME_MAX:
                findings.append(("/" + name, f"has {len(value.encode())} bytes", f"at most {_HOST_NAME_MAX} bytes", "error"))
    _linux(spec, types, rootless, findings)
    if spec.get("mounts"):
        from ocirt.spec.mounts import check_mounts  # noqa: PLC0415

        check_mounts(spec, types.get("user"), rootless, findings)
    if spec.get("hooks"):
        _hooks(spec["hooks"], findings)


def _version(version: str, findings: list[Finding]) -> None:
    parts = version.partition("+")[0].partition("-")[0].split(".")
    if len(parts) == 3 and version.isascii() and "".join(parts).isdecimal() and "" not in parts:
        if parts[0] == "1":
            return
        message = f'not supported: version "{version}" of the specification'
    else:
        message = f'"{version}" is not a version of the specification'
    findings.append(("/ociVersion", message, '"1.0.0" to "1.3.0"', "error"))


def _namespaces(linux: dict[str, Any], rootless: bool, findings: list[Finding]) -> dict[str, dict[str, Any]]:  # noqa: FBT001
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
        _no_mount_namespace(findings, confined=rootless or "user" in out)
    return out


def _no_mount_namespace(findings: list[Finding], *, confined: bool) -> None:
    """`confined`: init would have no rights where the mounts are to be made."""
    if confined:
        message = "without a mount namespace the container's mounts are the host's, and only root of the host may make them"
    else:
        message = (
            "without a mount namespace the container has its root by chroot(2), which CAP_SYS_CHROOT leaves, and its mounts in "
            "the host's tree, below the root file system"
        )
    findings.append(("/linux/namespaces", message, 'add {"type": "mount"}', "error" if confined else "warning"))


def _linux(spec: dict[str, Any], types: dict[str, dict[str, Any]], rootless: bool, findings: list[Finding]) -> None:
    """Append the findings on `spec["linux"]`; `types` are its namespaces by type."""
    linux = spec["linux"]
    user = types.get("user")
    if user or "uidMappings" in linux or "gidMappings" in linux:
        from ocirt.spec.mappings import check_user_namespace  # noqa: PLC0415  (only if there is one)

        check_user_namespace(spec, user, rootless, findings)
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
        for index, rule in enumerate(resources.get("devices", ())):
            if rule != _DENY_ALL:
                from ocirt.spec.devices import check_rule  # noqa: PLC0415

                check_rule(rule, f"/linux/resources/devices/{index}", findings)
        if len(resources) > ("devices" in resources):
            from ocirt.spec.resources import check_resources  # noqa: PLC0415

            check_resources(resources, "/linux/resources", findings)
    if seccomp := linux.get("seccomp"):
        from ocirt.spec.seccomp import check_seccomp  # noqa: PLC0415

        check_seccomp(seccomp, "/linux/seccomp", findings)
    if "intelRdt" in linux:
        from ocirt.spec.intelrdt import check_intel_rdt  # noqa: PLC0415

        check_intel_rdt(linux["intelRdt"], findings)
    if net_devices := linux.get("netDevices"):
        from ocirt.spec.netdevices import check_netdevices  # noqa: PLC0415

        check_netdevices(net_devices, types, rootless, findings)
    for name in ("memoryPolicy", "personality"):
        if name in linux:
            from ocirt.spec import scheduling  # noqa: PLC0415

            check = scheduling.check_memory_policy if name == "memoryPolicy" else scheduling.check_personality
            check(linux[name], "/linux/" + name, findings)
    if "timeOffsets" in linux:
        _time_offsets(linux["timeOffsets"], types.get("time"), findings)


def _time_offsets(offsets: dict[str, Any], namespace: dict[str, Any] | None, findings: list[Finding]) -> None:
    if namespace is None:
        hint = 'add {"type": "time"} to /linux/namespaces'
        findings.append(("/linux/timeOffsets", "offsets without a time namespace", hint, "error"))
    elif namespace.get("path"):
        hint = "leave them out, or the namespace's path: only a new one has clocks that can be set"
        findings.append(("/linux/timeOffsets", "offsets for a time namespace that is joined", hint, "error"))
    for clock in ("monotonic", "boottime"):
        if offsets.get(clock, {}).get("nanosecs", 0) >= _SECOND:
            pointer = f"/linux/timeOffsets/{clock}/nanosecs"
            findings.append((pointer, "is out of range", "an integer from 0 to 999999999, the rest in secs", "error"))


def _hooks(hooks: dict[str, list[dict[str, Any]]], findings: list[Finding]) -> None:
    for kind in SPEC["hooks"]:  # the section may hold more: properties that are not known are ignored
        for index, hook in enumerate(hooks.get(kind, ())):
            path = hook["path"]
            if path[:1] != "/":
                hint = f'where the program is: "/usr/bin/{path or "…"}"'
                findings.append((f"/hooks/{kind}/{index}/path", f'"{path}" is not an absolute path', hint, "error"))
            for number, entry in enumerate(hook.get("env", ())):
                if entry.find("=") < 1:
                    message = f'"{entry}" is not an environment variable'
                    findings.append((f"/hooks/{kind}/{index}/env/{number}", message, "NAME=value", "error"))
