"""The seccomp filter of a container: none, the runtime's own, or a file of the node.

A file is one of config.json's form, or of docker's, whose rules may depend on capabilities, architecture and kernel ("includes",
"excludes", "archMap"). Privileged containers have none, whatever is asked for.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ocirt.spec.seccomp import SHAPES, check_seccomp
from ocirt.spec.shape import walk
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec import seccompdefault
from ocirt_cri.spec.refuse import invalid, shown, unsupported

if TYPE_CHECKING:
    from collections.abc import Collection

    from ocirt.spec.shape import Finding
    from ocirt_api.cri.api_pb2 import LinuxContainerSecurityContext
    from ocirt_cri.spec.inputs import Host, Json, Lookups, Settings

FIELD = "config.linux.security_context"
LIMIT = 4 << 20  # bytes of a profile
_UNCONFINED, _DEFAULT = "unconfined", "runtime/default"
_DEFAULT_WORDS = (_DEFAULT, "docker/default")
_LOCALHOST = "localhost/"
# GOARCH, as docker's profiles name architectures, by uname(2)'s name
_GOARCH = {
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "loongarch64": "loong64",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
    "x86_64": "amd64",
}
NATIVE = {
    "aarch64": "SCMP_ARCH_AARCH64",
    "armv7l": "SCMP_ARCH_ARM",
    "i686": "SCMP_ARCH_X86",
    "loongarch64": "SCMP_ARCH_LOONGARCH64",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "riscv64": "SCMP_ARCH_RISCV64",
    "s390x": "SCMP_ARCH_S390X",
    "x86_64": "SCMP_ARCH_X86_64",
}


def check(security: LinuxContainerSecurityContext, host: Host) -> None:
    """What can be said without looking at a file. Raises Error."""
    kind, reference, field = wanted(security, _UNCONFINED)
    if kind == cri.SecurityProfile.Localhost and not reference.startswith("/"):
        hint = "the path of a profile, such as /var/lib/kubelet/seccomp/NAME.json"
        raise invalid(field, f"{shown(reference)} is not an absolute path", hint)
    if kind != cri.SecurityProfile.Unconfined and not security.privileged and not host.seccomp:
        raise unsupported(field, "the kernel has no seccomp filters", "Unconfined")


def wanted(security: LinuxContainerSecurityContext, unset: str) -> tuple[int, str, str]:
    """(kind of profile, its path, field that says so). `unset`: what it is if nothing says so. Raises Error."""
    if security.HasField("seccomp"):
        field = f"{FIELD}.seccomp"
        if security.seccomp.profile_type not in cri.SecurityProfile.ProfileType.values():
            what = f"{security.seccomp.profile_type} is no type of a profile"
            raise invalid(field + ".profile_type", what, "RuntimeDefault (0), Unconfined (1) or Localhost (2)")
        localhost = security.seccomp.profile_type == cri.SecurityProfile.Localhost
        return security.seccomp.profile_type, security.seccomp.localhost_ref, field + ".localhost_ref" if localhost else field
    field = f"{FIELD}.seccomp_profile_path"
    text = security.seccomp_profile_path
    if not text:
        text, field = _DEFAULT if unset == "runtime-default" else _UNCONFINED, f"{FIELD}.seccomp"
    if text == _UNCONFINED:
        return cri.SecurityProfile.Unconfined, "", field
    if text in _DEFAULT_WORDS:
        return cri.SecurityProfile.RuntimeDefault, "", field
    if text.startswith(_LOCALHOST):
        return cri.SecurityProfile.Localhost, text.removeprefix(_LOCALHOST), field
    raise invalid(field, f"{shown(text)} is no profile", f"{_UNCONFINED}, {_DEFAULT} or localhost/PATH")


def section(
    security: LinuxContainerSecurityContext, capabilities: Collection[str], settings: Settings, host: Host, lookups: Lookups
) -> Json | None:
    """`linux.seccomp` of a request that was checked; None for no filter. `capabilities`: the container's. Raises Error."""
    kind, reference, field = wanted(security, settings.seccomp_unset)
    if security.privileged or kind == cri.SecurityProfile.Unconfined:
        return None
    if kind == cri.SecurityProfile.RuntimeDefault:
        # What nobody asked for is not an error where it cannot be had.
        return resolved(seccompdefault.PROFILE, capabilities, host) if host.seccomp else None
    try:
        data = lookups.read(reference)
    except OSError as err:
        raise invalid(field, f"{shown(reference)} cannot be read", cause=err.strerror or str(err)) from None
    return parse(data, field, reference, capabilities, host)


def parse(data: bytes, field: str, path: str, capabilities: Collection[str], host: Host) -> Json:
    """A profile from the bytes of a file. Raises Error that names the place in it."""
    if len(data) > LIMIT:
        raise invalid(field, f"{path} has {len(data)} bytes", f"{LIMIT} at most")
    try:
        profile = json.loads(data)
    except (ValueError, RecursionError) as err:
        raise invalid(field, f"{path} is not JSON", cause=str(err)[:200]) from None
    if not isinstance(profile, dict):
        raise invalid(field, f"{path} is not a profile", "a JSON object with a defaultAction")
    try:
        found = resolved(profile, capabilities, host)
    except (TypeError, ValueError, AttributeError, KeyError):
        raise invalid(field, f"{path} is not a profile", "see config-linux.md of the runtime specification") from None
    findings: list[Finding] = []
    walk(found, SHAPES["seccomp"], "", findings)
    if not any(finding[3] == "error" for finding in findings):
        check_seccomp(found, "", findings)
    for pointer, message, hint, severity in findings:
        if severity == "error":
            raise invalid(field, f"{path}: {pointer or '/'}: {message}", hint)
    return found


def resolved(profile: dict[str, Any], capabilities: Collection[str], host: Host) -> Json:
    """A profile of docker's form as one of config.json's: with the rules that hold for these capabilities on this host."""
    found: Json = {name: profile[name] for name in _KEPT if profile.get(name) is not None}
    architectures = list(profile.get("architectures") or ())
    for entry in profile.get("archMap") or ():
        if entry["architecture"] == NATIVE.get(host.machine):
            architectures += [entry["architecture"], *(entry.get("subArchitectures") or ())]
    if architectures:
        found["architectures"] = list(dict.fromkeys(architectures))
    rules = []
    for rule in profile.get("syscalls") or ():
        if not _holds(rule.get("includes") or {}, capabilities, host, empty=True):
            continue
        if _any_holds(rule.get("excludes") or {}, capabilities, host):
            continue
        names = list(rule.get("names") or ()) or ([rule["name"]] if rule.get("name") else [])
        kept: Json = {"names": names, "action": rule["action"]}
        if rule.get("errnoRet") is not None:
            kept["errnoRet"] = rule["errnoRet"]
        if rule.get("args"):
            kept["args"] = [{name: value for name, value in arg.items() if value is not None} for arg in rule["args"]]
        rules.append(kept)
    if rules:
        found["syscalls"] = rules
    return found


_KEPT = ("defaultAction", "defaultErrnoRet", "flags", "listenerPath", "listenerMetadata")


def _holds(condition: dict[str, Any], capabilities: Collection[str], host: Host, *, empty: bool) -> bool:
    """Whether all that a condition names is so; `empty`: what one is that names nothing."""
    if not any(condition.get(name) for name in ("caps", "arches", "minKernel")):
        return empty
    caps, arches = condition.get("caps") or (), condition.get("arches") or ()
    if arches and not _here(arches, host):
        return False
    if not all(name in capabilities for name in caps):
        return False
    return not condition.get("minKernel") or host.kernel >= _version(condition["minKernel"])


def _any_holds(condition: dict[str, Any], capabilities: Collection[str], host: Host) -> bool:
    """Whether something that a condition names is so: one is enough to leave a rule out."""
    if _here(condition.get("arches") or (), host) or any(name in capabilities for name in condition.get("caps") or ()):
        return True
    return bool(condition.get("minKernel")) and host.kernel >= _version(condition["minKernel"])


def _here(arches: Collection[str], host: Host) -> bool:
    return _GOARCH.get(host.machine, host.machine) in arches


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor.partition(".")[0])
