"""AppArmor: the runtime's own profile, one that the node has loaded, or none.

`apparmor` counts before the older `apparmor_profile`. Without a word, and with RuntimeDefault, it is the runtime's own, which is
loaded then, unless the node has loaded it; where that cannot be done, only who asked for it is refused. A privileged container
gets no profile but one that is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt import apparmor
from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec.refuse import invalid, shown, unsupported

if TYPE_CHECKING:
    from ocirt_api.cri.api_pb2 import LinuxContainerSecurityContext
    from ocirt_cri.spec.inputs import Host, Lookups, Settings

FIELD = "config.linux.security_context"
_LOCALHOST = "localhost/"
_DEFAULT_WORDS = ("", "runtime/default", "docker/default")
_UNCONFINED = "unconfined"


def wanted(security: LinuxContainerSecurityContext) -> tuple[int, str, str]:
    """(kind of profile, its name, field that says so). Raises Error."""
    if security.HasField("apparmor"):
        field = f"{FIELD}.apparmor"
        kind = security.apparmor.profile_type
        if kind not in cri.SecurityProfile.ProfileType.values():
            hint = "RuntimeDefault (0), Unconfined (1) or Localhost (2)"
            raise invalid(field + ".profile_type", f"{kind} is no type of a profile", hint)
        if kind != cri.SecurityProfile.Localhost:
            return kind, "", field
        name, field = security.apparmor.localhost_ref.removeprefix(_LOCALHOST), field + ".localhost_ref"
    else:
        field, text = f"{FIELD}.apparmor_profile", security.apparmor_profile
        if text in _DEFAULT_WORDS:
            return cri.SecurityProfile.RuntimeDefault, "", field
        if text == _UNCONFINED:
            return cri.SecurityProfile.Unconfined, "", field
        if not text.startswith(_LOCALHOST):
            raise invalid(field, f"{shown(text)} is no profile", "unconfined, runtime/default or localhost/NAME")
        name = text.removeprefix(_LOCALHOST)
    if not name or "\0" in name or "\n" in name:
        raise invalid(field, f"{shown(name)} is no name of a profile", "one of /sys/kernel/security/apparmor/profiles")
    return cri.SecurityProfile.Localhost, name, field


def profile(security: LinuxContainerSecurityContext, settings: Settings, host: Host, lookups: Lookups) -> str:
    """`process.apparmorProfile`, "" for none. Raises Error for a profile that is not there."""
    kind, name, field = wanted(security)
    if kind == cri.SecurityProfile.Unconfined:
        return ""
    if kind == cri.SecurityProfile.RuntimeDefault:
        return "" if security.privileged or not host.apparmor else _own(security, settings.apparmor_profile, field, lookups)
    if not host.apparmor:
        raise unsupported(field, f"profile {shown(name)}: AppArmor is not enabled on this host", "leave it out")
    if not lookups.has_apparmor_profile(name):
        raise invalid(field, f"no profile {shown(name)} is loaded", "apparmor_parser -r FILE loads one")
    return name


def _own(security: LinuxContainerSecurityContext, name: str, field: str, lookups: Lookups) -> str:
    """The profile that RuntimeDefault means, which the kernel has then; "" if it has none and nobody has asked for it."""
    if lookups.has_apparmor_profile(name):
        return name
    if name != apparmor.NAME:  # a name that this node has chosen: its rules are not ours
        raise unsupported(
            field, f"no profile {shown(name)} is loaded", "see containers.apparmor_profile of ocirtd's configuration"
        )
    try:
        lookups.load_apparmor_profile(name)
    except Error as err:
        if security.HasField("apparmor") or security.apparmor_profile:
            raise unsupported(field, f"profile {shown(name)} cannot be had", err.hint, cause=err.cause or err.message) from None
        lookups.warn(f"a container without AppArmor's confinement: {err}")
        return ""
    return name
