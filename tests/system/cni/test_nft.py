"""The rules of attachments: what is committed, what is removed, and what is left alone."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocirt_cni import nft
from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.call import Attachment
from ocirt_cni.errors import CHECK_FAILED, TAKEN, Error
from ocirt_cni.nft import library, state
from ocirt_cni.nft.base import VERSION
from ocirt_cni.nft.changes import Changes, check, collect, reload, remove
from ocirt_cni.nft.rules import Port
from ocirt_cni.nft.wire import Tables
from tests.support.networks import Host, command, ruleset

_ONE = Attachment("net", "c1", "eth0")
_TWO = Attachment("net", "c2", "eth0")


def _changes(attachment: Attachment = _ONE, number: int = 5, plugin: str = "bridge") -> Changes:
    made = Changes(attachment, plugin)
    made.masquerade([Prefix.parse(f"10.88.0.{number}/16"), Prefix.parse(f"fd00::{number}/64")])
    made.admit("cni0")
    made.forbid_spoofing(f"veth{number}", "02:00:00:00:00:01")
    return made


def _published(attachment: Attachment, port: int = 8080, host: str = "", number: int = 5) -> Changes:
    made = Changes(attachment, "portmap")
    address = Address.parse(host) if host else None
    made.publish(Port("tcp", address, port, Prefix.parse(f"10.88.0.{number}/16"), 80))
    return made


def test_what_is_committed_is_removed_with_all_that_was_made_for_it(host: Host) -> None:
    before = ruleset()
    changes = _changes()
    changes.commit()
    check(changes)
    found = ruleset()
    assert 'elements = { 10.88.0.5 comment "net c1 eth0" }' in found
    assert 'elements = { fd00::5 comment "net c1 eth0" }' in found
    assert 'ip saddr 10.88.0.0/16 jump masquerade-10.88.0.0/16 comment "masquerade-10.88.0.0/16"' in found
    assert 'ip6 saddr fd00::/64 jump masquerade-fd00__/64 comment "masquerade-fd00__/64"' in found
    assert '"cni0" comment "shared"' in found
    assert '"veth5" . 02:00:00:00:00:01 comment "net c1 eth0"' in found
    remove(_ONE, "bridge")
    assert ruleset() == before
    assert not list(Path("/run/ocirt/cni").iterdir())
    remove(_ONE, "bridge")
    with pytest.raises(Error) as caught:
        check(changes)
    assert caught.value.code == CHECK_FAILED


@pytest.mark.parametrize(("above", "plugin"), [("networks", "bridge"), ("hairpins", "portmap")])
def test_a_rule_that_somebody_took_is_missed(host: Host, above: str, plugin: str) -> None:
    """The one that jumps to a network's chain; with the next attachment it would not come back by itself."""
    changes = _changes() if plugin == "bridge" else _published(_ONE)
    changes.commit()
    before = _lines()
    command("nft", f"flush chain inet ocirt {above}")
    with pytest.raises(Error, match=rf"inet ocirt {above}: the rule that jumps to .*-10.88.0.0/16 is missing") as caught:
        check(changes)
    assert caught.value.code == CHECK_FAILED
    reload()
    assert _lines() == before
    check(changes)
    remove(_ONE, plugin)
    assert ruleset() == ""


def test_networks_within_one_another(host: Host) -> None:
    """Each has a chain and a rule of its own, whichever comes or goes first."""
    wide, narrow = Changes(_ONE, "bridge"), Changes(_TWO, "bridge")
    wide.masquerade([Prefix.parse("10.1.2.3/8")])
    narrow.masquerade([Prefix.parse("10.88.0.5/16")])
    wide.commit()
    only = ruleset()
    narrow.commit()
    check(wide)
    check(narrow)
    remove(_TWO, "bridge")
    assert ruleset() == only
    remove(_ONE, "bridge")
    assert ruleset() == ""


def test_a_second_commit_replaces_the_first(host: Host) -> None:
    _published(_ONE, 8080).commit()
    _published(_ONE, 8081).commit()
    found = ruleset()
    assert "tcp . 8081 comment" in found
    assert "tcp . 8080 comment" not in found
    _published(_ONE, 8081).commit()
    assert ruleset() == found
    moved = _published(_ONE, 8081, number=6)
    moved.commit()
    assert "10.88.0.5" not in ruleset()
    remove(_ONE, "portmap")
    assert ruleset() == ""


def test_a_taken_port_names_its_owner_and_leaves_nothing(host: Host) -> None:
    with_host = _published(_ONE, host="192.0.2.1")
    with_host.commit()
    before = host.traces()
    with pytest.raises(
        Error, match=r"192.0.2.1:8080/tcp: the port of the host belongs to the attachment 'net c1 eth0'"
    ) as caught:
        _published(_TWO, host="192.0.2.1", number=6).commit()
    assert caught.value.code == TAKEN
    assert host.traces() == before
    _published(_TWO, host="192.0.2.2", number=6).commit()
    remove(_TWO, "portmap")
    assert host.traces() == before


def test_a_refused_replacement_leaves_what_was_there(host: Host) -> None:
    _published(_ONE, 8080).commit()
    _published(_TWO, 8081, number=6).commit()
    before = host.traces()
    with pytest.raises(Error, match="belongs to the attachment 'net c1 eth0'"):
        _published(_TWO, 8080, number=6).commit()
    assert host.traces() == before


def test_what_is_shared_stays_until_nobody_uses_it(host: Host) -> None:
    before = ruleset()
    _changes(_ONE, 5).commit()
    only = _lines()
    _changes(_TWO, 6).commit()
    remove(_TWO, "bridge")
    assert _lines() == only
    _changes(_TWO, 6).commit()
    remove(_ONE, "bridge")
    found = ruleset()
    assert '"cni0" comment "shared"' in found
    assert "chain masquerade-10.88.0.0/16" in found
    assert "net c1 eth0" not in found
    remove(_TWO, "bridge")
    assert ruleset() == before


def test_an_element_that_became_somebody_elses_is_left_alone(host: Host) -> None:
    _published(_ONE, 8080).commit()
    command("nft", "delete element inet ocirt ports4 { tcp . 8080 }")
    command("nft", 'add element inet ocirt ports4 { tcp . 8080 comment "net c9 eth0" : 10.88.0.5 . 80 }')
    remove(_ONE, "portmap")
    assert '8080 comment "net c9 eth0"' in ruleset()
    assert "c1" not in ruleset()


def test_an_address_is_its_new_owners(host: Host) -> None:
    _changes(_ONE, 5).commit()
    _changes(_TWO, 5).commit()  # the pool gave it away again, and nobody called DEL
    remove(_ONE, "bridge")
    assert '10.88.0.5 comment "net c2 eth0"' in ruleset()
    remove(_TWO, "bridge")
    assert ruleset() == ""


def test_without_records_the_comments_tell(host: Host) -> None:
    _published(_ONE, 8080).commit()
    _published(_TWO, 8081, number=6).commit()
    command("rm", "-r", "/run/ocirt")
    remove(_ONE, "portmap")
    assert "c1" not in ruleset()
    assert "net c2 eth0" in ruleset()
    command("rm", "-rf", "/run/ocirt")
    remove(_TWO, "portmap")
    assert "net c2 eth0" not in ruleset()


def test_collecting_takes_what_is_not_valid_and_of_this_network(host: Host) -> None:
    other = Attachment("other", "c1", "eth0")
    for number, one in enumerate((_ONE, _TWO, other, Attachment("net", "c3", "eth0")), 5):
        _changes(one, number).commit()
        _published(one, 8000 + number, number=number).commit()
    command("rm", "/run/ocirt/cni/" + _namespace() + "/records/bridge net c3 eth0")
    collect("net", "bridge", frozenset({("c2", "eth0")}))
    found = ruleset()
    assert '10.88.0.6 comment "net c2 eth0"' in found
    assert '10.88.0.7 comment "other c1 eth0"' in found
    assert "10.88.0.5 comment" not in found
    assert "10.88.0.8 comment" not in found, "its record was lost"
    assert "tcp . 8005" in found, "another plugin's"
    collect("net", "portmap", frozenset())
    assert "tcp . 8005" not in ruleset()
    collect("other", "portmap", frozenset())
    collect("other", "bridge", frozenset())
    collect("net", "bridge", frozenset())
    assert "comment" not in ruleset().replace('comment "the kernel', "")


def test_collecting_leaves_alone_what_is_of_another_folder(host: Host) -> None:
    for one, folder, number in ((_ONE, "/var/lib/ours", 5), (_TWO, "/var/lib/theirs", 6)):
        made = Changes(one, "bridge", folder)
        made.masquerade([Prefix.parse(f"10.88.0.{number}/16")])
        made.commit()
        _published(one, 8000 + number, number=number).commit()
    collect("net", "bridge", frozenset(), "/var/lib/ours")
    collect("net", "portmap", frozenset())
    found = ruleset()
    assert "c1" not in found
    assert '10.88.0.6 comment "net c2 eth0"' in found
    assert '8006 comment "net c2 eth0"' in found
    collect("net", "bridge", frozenset(), "/var/lib/theirs")
    collect("net", "portmap", frozenset())
    assert ruleset() == ""


def test_reload_makes_all_again(host: Host) -> None:
    _changes(_ONE, 5).commit()
    _published(_ONE).commit()
    _published(_TWO, 8081, host="192.0.2.1", number=6).commit()
    whole = _lines()
    command("nft", "flush ruleset")
    nft.reload()
    assert _lines() == whole
    command(
        "nft", "flush chain ip filter FORWARD; flush set inet ocirt admitted; delete element inet ocirt ports4 { tcp . 8080 }"
    )
    nft.reload()
    assert _lines() == whole
    assert [str(one.attachment) for one in nft.listing()] == ["net c1 eth0", "net c1 eth0", "net c2 eth0"]
    command("nft", "flush ruleset")
    for one in (_ONE, _TWO):
        remove(one, "bridge")
        remove(one, "portmap")
    assert ruleset() == ""


def test_a_commit_after_a_flush_makes_the_tables_again(host: Host) -> None:
    _changes(_ONE, 5).commit()
    command("nft", "flush ruleset")
    _changes(_TWO, 6).commit()
    assert '10.88.0.6 comment "net c2 eth0"' in ruleset()
    nft.reload()
    assert '10.88.0.5 comment "net c1 eth0"' in ruleset()


def test_an_older_base_is_replaced_and_a_newer_one_refused(host: Host) -> None:
    _changes(_ONE, 5).commit()
    whole = _lines()
    command("nft", f"delete chain inet ocirt {VERSION}; add chain inet ocirt version-0; flush chain inet ocirt postrouting")
    _changes(_ONE, 5).commit()
    assert _lines() == whole
    command("nft", f"delete chain inet ocirt {VERSION}; add chain inet ocirt version-1000")
    with pytest.raises(Error, match="a newer ocirt made this table"):
        _changes(_TWO, 6).commit()


@pytest.mark.parametrize("how", ["remove", "collect"])
def test_what_an_older_ocirt_had_elsewhere_is_removed(host: Host, how: str) -> None:
    """Version 2 had maps with a jump for what is in sets now; and DEL may be the first that a newer one is asked for."""
    _changes(_ONE, 5).commit()
    _changes(_TWO, 6).commit()
    whole = _lines()
    old = 'inet ocirt masquerade4 { 10.88.0.%d comment "net c%d eth0" : jump masquerade-10.88.0.0/16 }'
    command("nft", "flush set inet ocirt masqueraded4; flush chain inet ocirt networks")
    command("nft", f"add element {old % (5, 1)}; add element {old % (6, 2)}")
    command("nft", f"delete chain inet ocirt {VERSION}; add chain inet ocirt version-2")
    if how == "remove":
        remove(_ONE, "bridge")
    else:
        collect("net", "bridge", frozenset({("c2", "eth0")}))
    assert "10.88.0.5" not in ruleset()
    assert "jump masquerade-10.88.0.0/16 comment" in ruleset()
    _changes(_ONE, 5).commit()
    assert _lines() == whole
    remove(_ONE, "bridge")
    remove(_TWO, "bridge")
    assert ruleset() == ""


@pytest.mark.parametrize("ifname", ['a"b', "a\\b", "é"])
def test_odd_names_cannot_break_out_of_comments(ifname: str, host: Host) -> None:
    before = host.traces()
    odd = Attachment("n" * 100, "c" * 200, ifname)
    _published(odd).commit()
    saved = _lines()
    command("nft", "flush ruleset")
    nft.reload()
    assert _lines() == saved
    Path("/run/saved.nft").write_text(f"flush ruleset\n{ruleset()}")
    command("nft", "-f", "/run/saved.nft")
    assert _lines() == saved
    collect("n" * 100, "portmap", frozenset({("c" * 200, ifname)}))
    assert _lines() == saved
    remove(odd, "portmap")
    Path("/run/saved.nft").unlink()
    assert host.traces() == before


def test_without_libnftables_the_error_says_what_to_install(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    before = host.traces()
    monkeypatch.setattr(library, "_NAME", "libnowhere.so.1")
    changes = _published(_ONE)
    changes.conditions = {4: "ip saddr 10.0.0.1"}
    with pytest.raises(Error, match=r"libnowhere.so.1 cannot be loaded: .*\(install libnftables \(with Debian: libnftables1\)\)"):
        changes.commit()
    assert host.traces() == before
    _changes().commit()  # of which it is no part
    remove(_ONE, "bridge")
    assert host.traces() == before


def test_without_the_capability_the_error_says_so(host: Host) -> None:
    said = _in_child(_commit_as_nobody)
    assert said.startswith("the rules of nftables cannot be changed: EPERM")
    assert "CAP_NET_ADMIN" in said


def _commit_as_nobody() -> str:
    os.setuid(65534)
    try:
        _changes().commit()
    except Error as err:
        return str(err)
    return "it worked"


def test_nothing_is_listed_for_one_of_a_thousand(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1000):
        made = Changes(Attachment("net", f"x{number}", "eth0"), "bridge")
        made.masquerade([Prefix.parse(f"10.88.{4 + number // 250}.{number % 250}/16"), Prefix.parse(f"fd00::1:{number:x}/64")])
        made.admit("cni0")
        made.commit()
    owner = Attachment("net", "c1", "eth0")
    _changes(owner).commit()  # makes the table of the family bridge
    asked: list[str] = []
    monkeypatch.setattr(Tables, "dump", _counted(Tables.dump, "dump", asked))
    monkeypatch.setattr(state, "_names", _counted(state._names, "listdir", asked))
    _changes(owner, 6).commit()
    _published(owner, 8001, number=6).commit()
    _published(Attachment("net", "x0", "eth0"), 9000, number=7).commit()  # so that the network's chain stays
    asked.clear()
    _published(owner, 8002, number=6).commit()
    remove(owner, "portmap")
    remove(owner, "bridge")
    # Things that are shared are listed, not those who share them; no set, chain or rule is.
    assert {one.partition("/claims/")[2] for one in asked} <= {"admitted", "asked", "host_port/tcp4 8002"}


def _counted(function: Callable[..., Any], name: str, calls: list[str]) -> Callable[..., Any]:
    def wrapper(*args: Any) -> Any:
        calls.append(f"{name} {args[0]}")
        return function(*args)

    return wrapper


def test_many_at_once(host: Host) -> None:
    before = host.traces()
    children = []
    for number in range(8):
        pid = os.fork()
        if not pid:
            try:
                _churn(number)
            except BaseException:  # noqa: BLE001  (the child of a test must not go on as the test)
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 8
    assert host.traces() == before


def _churn(number: int) -> None:
    for turn in range(15):
        one = Attachment("net", f"c{number}-{turn}", "eth0")
        _changes(one, 10 + number).commit()
        made = _published(one, 8000 + number, number=10 + number)
        made.commit()
        check(made)
        remove(one, "portmap")
        remove(one, "bridge")


def _in_child(function: Callable[[], str]) -> str:
    """What a function returns in a child process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(writing, function().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        text = file.read()
    os.waitpid(pid, 0)
    return text


def _lines() -> list[str]:
    """The rule set; chains may have been made in any order."""
    return sorted(ruleset().splitlines())


def _namespace() -> str:
    return next(Path("/run/ocirt/cni").iterdir()).name
