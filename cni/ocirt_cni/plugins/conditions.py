"""portmap's `conditionsV4` and `conditionsV6`: which packets to a published port are meant, in iptables' words or nft's."""

from __future__ import annotations

from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.call import check_ifname
from ocirt_cni.errors import INVALID_CONFIG, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OPTIONS = {
    "-s": "saddr",
    "--source": "saddr",
    "--src": "saddr",
    "-d": "daddr",
    "--destination": "daddr",
    "--dst": "daddr",
    "-i": "iifname",
    "--in-interface": "iifname",
}
# What a condition of nft has: no end of a statement, no comment, no variable.
_ALLOWED = frozenset('abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .:/!=<>&|_-,{}@*"')
_VERDICTS = {"accept", "drop", "queue", "continue", "return", "jump", "goto", "reject", "dnat", "snat", "masquerade", "redirect"}


def parse(conf: dict[str, Any], name: str, version: int) -> str:
    """The conditions as nft(8) reads them, "" if there are none. Raises Error(INVALID_CONFIG) that names the word."""
    words = conf.get(name)
    if words is None:
        return ""
    if not isinstance(words, list) or not all(isinstance(one, str) for one in words):
        raise Error(INVALID_CONFIG, "this is not a list of strings", subject=f"/{name}")
    if any(one == "!" or one.startswith("-") for one in words):
        return _of_iptables(words, name, version)
    text = " ".join(words)
    if not _ALLOWED.issuperset(text) or _VERDICTS.intersection(text.split()):
        hint = "only matches, without verdicts"
        raise Error(INVALID_CONFIG, f"{text!r} is no condition of nftables", subject=f"/{name}", hint=hint)
    return text


def _of_iptables(words: list[str], name: str, version: int) -> str:
    found = []
    rest = iter(enumerate(words))
    for number, word in rest:
        negated = word == "!"
        option = next(rest, (number, ""))[1] if negated else word
        kind = _OPTIONS.get(option)
        if kind is None:
            known = ", ".join(one for one in _OPTIONS if len(one) == 2)
            hint = f"of iptables' options, {known} and ! are understood; write others in the language of nft(8)"
            raise Error(INVALID_CONFIG, f"{option!r} is not understood", subject=f"/{name}/{number}", hint=hint)
        at, value = next(rest, (number, ""))
        found.append(_match(kind, value, f"/{name}/{at}", version, "!= " if negated else ""))
    return " ".join(found)


def _match(kind: str, value: str, where: str, version: int, operator: str) -> str:
    if kind == "iifname":
        check_ifname(value.removesuffix("+"), where)
        if '"' in value or "\\" in value:
            raise Error(INVALID_CONFIG, f"{value!r} cannot be the name of an interface here", subject=where)
        text = f"{value[:-1]}*" if value.endswith("+") else value
        return f'iifname {operator}"{text}"'
    try:
        prefix = Prefix.parse(value) if "/" in value else Prefix.host(Address.parse(value))
    except ValueError as err:
        raise Error(INVALID_CONFIG, str(err), subject=where) from None
    if prefix.version != version:
        raise Error(INVALID_CONFIG, f"{value} is no address of IPv{version}", subject=where)
    return f"{'ip' if version == 4 else 'ip6'} {kind} {operator}{prefix.network}"
