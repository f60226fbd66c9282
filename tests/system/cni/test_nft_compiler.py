"""The messages that are compiled here make what libnftables makes of the same commands."""

from __future__ import annotations

import pytest

from ocirt_cni.addresses import Prefix
from ocirt_cni.nft import base, compiler, forward, kept
from tests.support.networks import command, new_network, ruleset

PREFIXES = [Prefix.parse(one) for one in ("10.1.0.0/16", "10.1.128.0/17", "10.0.0.1/32", "fd00:1::/64", "fd00:1:0:0:2000::/67")]
CHAINS = [*map(base.masquerading, PREFIXES), *map(base.hairpinning, PREFIXES), base.EVERYBODY]


def _made(*, by_library: bool, before: str = "", asked: tuple[str, ...] = ()) -> str:
    """The rule set of a new network namespace with all that we make."""

    def run(commands: str) -> None:
        if by_library:
            kept.library().run(commands)
        else:
            kept.tables().transact(compiler.compiled(commands))

    with new_network():
        if before:
            command("sh", "-c", before)
        for family in base.FAMILIES:
            run(base.table(family))
        for _ in range(2):  # the second time they are there
            run("".join(map(base.chain, CHAINS)))
        run("".join(forward.missing(kept.tables()).values()))
        if asked:  # behind the rule that is there, which is deleted for it
            run("".join(forward.missing(kept.tables(), asked).values()))
        found = ruleset()
        kept.release()
    return found


def test_all_that_we_make() -> None:
    found = _made(by_library=False)
    assert found == _made(by_library=True)
    for name in CHAINS:
        assert f"chain {name} {{" in found


@pytest.mark.parametrize("before", ["", "iptables -P FORWARD DROP; iptables -N ASKED", "nft add table ip filter"])
def test_beside_others(before: str) -> None:
    found = _made(by_library=False, before=before, asked=("ASKED",))
    assert found == _made(by_library=True, before=before, asked=("ASKED",))
    assert "jump ASKED" in found
