"""What the IPAM plugins have in common in their configuration: the object `ipam`, and addresses that somebody asks for."""

from __future__ import annotations

from ocirt_cni import versions
from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.call import Call, field
from ocirt_cni.errors import INVALID_CONFIG, INVALID_ENVIRONMENT, Error
from ocirt_cni.results import Route, parse_route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

WHERE = "/ipam"


def section(call: Call) -> dict[str, Any]:
    """The object `ipam`. Raises Error(INVALID_CONFIG) if there is none."""
    found: dict[str, Any] | None = field(call.conf, "ipam", dict, None)
    if found is None:
        raise Error(INVALID_CONFIG, "it is missing", subject=WHERE)
    return found


def needs_interface(call: Call) -> bool:
    """Whether the IPAM plugin may work with the interface itself, as dhcp does. Raises Error(INVALID_CONFIG).

    Then the interface has to be there before ADD, and until after DEL. With host-local and static the other way round is better:
    nobody gets an address whose link is there still. Foreign ones may expect what the reference's plugins do.
    """
    found: str = field(field(call.conf, "ipam", dict, {}), "type", str, "", WHERE)
    return found not in ("", "host-local", "static")


def refuse_unknown(document: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raises Error(INVALID_CONFIG) for the first field that is none of `known`: a misspelt one would go unnoticed."""
    for name in document:
        if name not in known:
            hint = f"known are {', '.join(sorted(known))}"
            raise Error(
                INVALID_CONFIG, "unknown field", subject=f"{where}/{name.replace('~', '~0').replace('/', '~1')}", hint=hint
            )


def objects(document: Mapping[str, Any], name: str, where: str) -> list[tuple[dict[str, Any], str]]:
    """A list of objects, each with its pointer. Raises Error(INVALID_CONFIG)."""
    found = [(one, f"{where}/{name}/{number}") for number, one in enumerate(field(document, name, list, [], where))]
    for one, at in found:
        if not isinstance(one, dict):
            raise Error(INVALID_CONFIG, "this is not an object", subject=at)
    return found


def strings(document: Mapping[str, Any], name: str, where: str) -> list[tuple[str, str]]:
    """A list of strings, each with its pointer. Raises Error(INVALID_CONFIG)."""
    found = [(one, f"{where}/{name}/{number}") for number, one in enumerate(field(document, name, list, [], where))]
    for one, at in found:
        if not isinstance(one, str):
            raise Error(INVALID_CONFIG, "this is not a string", subject=at)
    return found


def routes(ipam: Mapping[str, Any]) -> list[Route]:
    """The field `routes`. Raises Error."""
    return [parse_route(one, at) for one, at in objects(ipam, "routes", WHERE)]


def address(text: str, where: str, code: int = INVALID_CONFIG) -> Address:
    """An address; the length of a network behind it is left out. Raises Error that names `where`."""
    try:
        return Prefix.parse(text).address if "/" in text else Address.parse(text)
    except ValueError as err:
        raise Error(code, str(err), subject=where) from None


def prefix(text: str, where: str, code: int = INVALID_CONFIG) -> Prefix:
    """An address with the length of its network. Raises Error that names `where`."""
    try:
        return Prefix.parse(text)
    except ValueError as err:
        raise Error(code, str(err), subject=where) from None


Asked = list[tuple[str, str, int]]  # texts, each with where it stands, and the code of an error about it


def of_environment(call: Call, key: str) -> Asked:
    """The values of a key of CNI_ARGS, with commas between them (CONVENTIONS.md, "CNI_ARGS")."""
    return [(text.strip(), f"CNI_ARGS/{key}", INVALID_ENVIRONMENT) for text in call.args.get(key, "").split(",") if text.strip()]


def of_args(call: Call) -> Asked:
    """The addresses in `args.cni.ips`. Raises Error(INVALID_CONFIG)."""
    return [(text, where, INVALID_CONFIG) for text, where in strings(call.cni_args, "ips", "/args/cni")]


def of_capability(call: Call) -> Asked:
    """The addresses of the capability `ips`. Raises Error(INVALID_CONFIG)."""
    return [(text, where, INVALID_CONFIG) for text, where in strings(call.runtime, "ips", "/runtimeConfig")]


def check_count(call: Call, ip_versions: Iterable[int]) -> None:
    """Before 0.3.0 a result has room for one address of each IP version. Raises Error(INVALID_CONFIG)."""
    if versions.at_least(call.version, "0.3.0"):
        return
    each = sorted(ip_versions)
    for version in (4, 6):
        if each.count(version) > 1:
            raise Error(
                INVALID_CONFIG,
                f"CNI version {call.version} does not support more than 1 address per family",
                subject="/cniVersion",
                hint="0.3.0 is the first that does",
            )
