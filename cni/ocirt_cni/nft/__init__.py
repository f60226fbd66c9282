"""The one nftables layer of the plugins: the table `inet ocirt`, changed in transactions.

changes     what plugins call: the rules of an attachment, committed, removed, checked, collected
rules       what these rules are, and the elements they are made of
base        the tables' text
sets        the sets and maps, and their elements
wire        nf_tables' own messages, for elements
compiler    from the language of nft(8) to such messages, for the tables' text
ready       what the compiler makes of the texts that never change
library     libnftables, for what the compiler does not know: conditions of a port, elements in this language
forward     the rule in other tables' forward chains
zones       the zones of firewalld that addresses belong to
state       records of who has what
owners      comments
localnet    the sysctl that ports published at 127.0.0.1 need
kept        the connections to nftables that this process keeps open
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.nft.rules import Rules


def reload() -> None:
    """Make all rules again, after somebody flushed the rule set. Raises Error."""
    from ocirt_cni.nft import changes  # noqa: PLC0415  (who imports a module of this package does not need all of them)

    changes.reload()


def listing() -> list[Rules]:
    """The rules of all attachments. Raises Error."""
    from ocirt_cni.nft import changes  # noqa: PLC0415

    return changes.listing()
