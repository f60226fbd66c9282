"""Judge a config.json: its shape first, then what it means. Nothing is looked at but the document itself.

(One exception: where a spec asks for confinement by AppArmor or SELinux, the finding says whether this host has it.)
"""

from __future__ import annotations

from ocirt.spec.linux import check_linux, namespaces
from ocirt.spec.process import check_process
from ocirt.spec.shape import SPEC, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.spec.shape import Finding

_HOST_NAME_MAX = 64  # bytes, sethostname(2)


def check(spec: Any, rootless: bool = False) -> list[Finding]:
    """The findings on a document, the most basic first: (JSON pointer, message, hint, "error" or "warning").

    `rootless`: the runtime is not root. Members that are null are removed from `spec`. After an error in the shape the meaning is
    not looked at.
    """
    findings: list[Finding] = []
    walk(spec, SPEC, "", findings)
    for finding in findings:
        if finding[3] == "error":
            return findings
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
        return findings
    if not spec["root"]["path"]:
        findings.append(("/root/path", "is empty", 'a directory, absolute or relative to the bundle, such as "rootfs"', "error"))
    check_process(spec["process"], "/process", findings)
    types = namespaces(spec["linux"], findings)
    for name in ("hostname", "domainname"):
        if value := spec.get(name):
            if "uts" not in types:
                message = f"a {name} needs a UTS namespace: the host's would change"
                findings.append(("/" + name, message, 'add {"type": "uts"} to /linux/namespaces', "error"))
            elif len(value.encode()) > _HOST_NAME_MAX:
                findings.append(("/" + name, f"has {len(value.encode())} bytes", f"at most {_HOST_NAME_MAX} bytes", "error"))
    check_linux(spec, types, rootless, findings)
    if spec.get("mounts"):
        from ocirt.spec.mounts import check_mounts  # noqa: PLC0415

        check_mounts(spec, types.get("user"), rootless, findings)
    if spec.get("hooks"):
        _hooks(spec["hooks"], findings)
    return findings


def _version(version: str, findings: list[Finding]) -> None:
    parts = version.partition("+")[0].partition("-")[0].split(".")
    if len(parts) == 3 and version.isascii() and "".join(parts).isdecimal() and "" not in parts:
        if parts[0] == "1":
            return
        message = f'not supported: version "{version}" of the specification'
    else:
        message = f'"{version}" is not a version of the specification'
    findings.append(("/ociVersion", message, '"1.0.0" to "1.3.0"', "error"))


def _hooks(hooks: dict[str, list[dict[str, Any]]], findings: list[Finding]) -> None:
    for kind, entries in hooks.items():
        for index, hook in enumerate(entries):
            path = hook["path"]
            if path[:1] != "/":
                hint = f'where the program is: "/usr/bin/{path or "…"}"'
                findings.append((f"/hooks/{kind}/{index}/path", f'"{path}" is not an absolute path', hint, "error"))
            for number, entry in enumerate(hook.get("env", ())):
                if entry.find("=") < 1:
                    message = f'"{entry}" is not an environment variable'
                    findings.append((f"/hooks/{kind}/{index}/env/{number}", message, "NAME=value", "error"))
