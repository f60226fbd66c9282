"""The zones of firewalld that attachments' addresses belong to, as far as firewalld runs.

It is asked over its bus only where it has its table, so that others pay for one message to the kernel. (It can be set to use
iptables, of which no table tells: then its forward chain is that of iptables, and the rule there has to do.)
"""

from __future__ import annotations

from ocirt_cni.nft import kept
from ocirt_cni.nft.sets import INET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.nft.rules import Rules

_TABLE = "firewalld"


def change(old: Rules | None, new: Rules | None) -> None:
    """Take the addresses of `old` out of their zone, and put those of `new` into theirs. Raises Error."""
    gone = [] if old is None else old.zoned
    wanted = [] if new is None else new.zoned
    if old is not None and new is not None and old.zone == new.zone:
        gone = [one for one in gone if one not in wanted]
    if not (gone or wanted) or not kept.tables().has_table(INET, _TABLE):
        return
    from ocirt_cni import firewalld  # noqa: PLC0415  (few hosts have it)

    found = firewalld.find()
    if found is None:
        return
    with found:
        if old is not None:
            found.dismiss(old.zone, gone)
        if new is not None:
            found.admit(new.zone, wanted)


def lacking(rules: Rules) -> list[str]:
    """Those of the addresses that are not in their zone of the firewalld that runs. Raises Error."""
    if not rules.zoned or not kept.tables().has_table(INET, _TABLE):
        return []
    from ocirt_cni import firewalld  # noqa: PLC0415

    found = firewalld.find()
    if found is None:
        return []
    with found:
        return found.lacking(rules.zone, rules.zoned)
