"""The zones of firewalld that attachments' addresses belong to, as far as firewalld runs.

It is asked over its bus only where it has its table, so that others pay for one message to the kernel. (It can be set to use
iptables, of which no table tells: then its forward chain is that of iptables, and the rule there has to do.)
"""

from __future__ import annotations

from ocirt_cni.nft import kept
from ocirt_cni.nft.sets import INET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.firewalld import Firewalld
    from ocirt_cni.nft.rules import Rules

_TABLE = "firewalld"


def change(old: Rules | None, *new: Rules) -> None:
    """Take the addresses of `old` out of their zone, but for those that `new` ones have there, and put these into theirs.

    Raises Error.
    """
    staying = {(one.zone, each) for one in new for each in one.zoned}
    gone = [] if old is None else [each for each in old.zoned if (old.zone, each) not in staying]
    found = _running() if gone or staying else None
    if found is None:
        return
    with found:
        if old is not None:
            found.dismiss(old.zone, gone)
        for one in new:
            found.admit(one.zone, one.zoned)


def lacking(rules: Rules) -> list[str]:
    """Those of the addresses that are not in their zone of the firewalld that runs. Raises Error."""
    found = _running() if rules.zoned else None
    if found is None:
        return []
    with found:
        return found.lacking(rules.zone, rules.zoned)


def _running() -> Firewalld | None:
    """The firewalld that runs, if one has its table. Raises Error."""
    if not kept.tables().has_table(INET, _TABLE):
        return None
    from ocirt_cni import firewalld  # noqa: PLC0415  (few hosts have it)

    return firewalld.find()
