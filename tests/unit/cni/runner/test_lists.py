"""Configuration folders, as libcni reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ocirt_cni.errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, INVALID_CONFIG, IO_FAILURE, Error
from ocirt_cni.runner import lists


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def a_list(name: str = "net", **more: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": name, "plugins": [{"type": "bridge", "x": {"y": [1]}}, {"type": "portmap"}]} | more


def parsed(**more: Any) -> lists.Network:
    return lists.parse(json.dumps(a_list(**more)).encode(), "a list")


def refused(**more: Any) -> Error:
    with pytest.raises(Error) as caught:
        parsed(**more)
    return caught.value


def test_a_list_keeps_what_it_does_not_know() -> None:
    network = parsed(more={"a": 1})
    assert (network.name, network.version, network.types()) == ("net", "1.0.0", ["bridge", "portmap"])
    assert network.plugins[0] == {"type": "bridge", "x": {"y": [1]}}
    assert [network.disable_check, network.disable_gc, network.only_inlined] == [False] * 3
    assert json.loads(network.data) == a_list(more={"a": 1})


@pytest.mark.parametrize(
    ("one", "more", "version"),
    [
        ("1.0.0", None, "1.0.0"),
        ("0.4.0", ["0.3.1", "1.1.0", "1.0.0"], "1.1.0"),
        ("1.1.0", ["0.3.1"], "1.1.0"),
        ("0.4.0", ["1.0.0", "2.0.0"], "1.0.0"),
        ("9.0.0", ["1.0.0"], "1.0.0"),
        (None, ["1.0.0", "0.4.0"], "1.0.0"),
        ("1.0.0", [], "1.0.0"),
        (None, None, "0.1.0"),
        ("", None, "0.1.0"),
    ],
)
def test_the_highest_version_that_is_known_is_taken(one: str | None, more: list[str] | None, version: str) -> None:
    assert parsed(cniVersion=one, cniVersions=more).version == version


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"cniVersion": "2.0.0"}, "/cniVersion: version 2.0.0 is not supported"),
        ({"cniVersion": None, "cniVersions": ["2.0.0", "3.0.0"]}, "/cniVersions: none of 2.0.0, 3.0.0 is supported"),
    ],
)
def test_a_version_that_is_not_known_is_refused(fields: dict[str, Any], where: str) -> None:
    err = refused(**fields)
    assert err.code == INCOMPATIBLE_VERSION
    assert where in str(err)


@pytest.mark.parametrize(("value", "meant"), [(True, True), (False, False), ("true", True), ("False", False), (None, False)])
@pytest.mark.parametrize("name", ["disableCheck", "disableGC", "loadOnlyInlinedPlugins"])
def test_flags_may_be_strings(name: str, value: Any, meant: bool) -> None:
    network = parsed(**{name: value})
    attribute = {"disableCheck": "disable_check", "disableGC": "disable_gc", "loadOnlyInlinedPlugins": "only_inlined"}[name]
    assert getattr(network, attribute) is meant


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"name": None}, "a list: /name"),
        ({"name": 7}, "a list: /name: this is not a string"),
        ({"name": "a/b"}, "a list: /name"),
        ({"cniVersion": 1}, "a list: /cniVersion"),
        ({"cniVersions": "1.0.0"}, "a list: /cniVersions"),
        ({"cniVersions": ["1.0.0", 1]}, "a list: /cniVersions/1"),
        ({"disableGC": "yes"}, "a list: /disableGC"),
        ({"disableCheck": 1}, "a list: /disableCheck"),
        ({"plugins": None}, "a list: there are no plugins"),
        ({"plugins": None, "loadOnlyInlinedPlugins": True}, "a list: /loadOnlyInlinedPlugins"),
        ({"plugins": []}, "a list: /plugins: the list is empty"),
        ({"plugins": {}}, "a list: /plugins"),
        ({"plugins": [7]}, "a list: /plugins/0: this is not an object"),
        ({"plugins": [{"type": "a"}, {}]}, "a list: /plugins/1/type"),
        ({"plugins": [{"type": "../sh"}]}, "a list: /plugins/0/type"),
        ({"plugins": [{"type": "a", "capabilities": []}]}, "a list: /plugins/0/capabilities"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], where: str) -> None:
    err = refused(**fields)
    assert err.code == INVALID_CONFIG
    assert str(err).startswith(where)


def test_what_is_no_json_is_named_by_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conflist", '{"name": "net",\n "x" 7}')
    with pytest.raises(Error, match="line 2") as caught:
        lists.read(str(path))
    assert caught.value.code == DECODING_FAILURE
    assert caught.value.subject == str(path)


def test_lists_come_first_then_single_plugins(tmp_path: Path) -> None:
    write(tmp_path / "20-b.conflist", a_list("b"))
    write(tmp_path / "10-a.conf", {"cniVersion": "0.4.0", "name": "a", "type": "loopback"})
    write(tmp_path / "05-c.json", {"name": "c", "type": "loopback"})
    write(tmp_path / "30-d.conflist", a_list("d"))
    write(tmp_path / "README", "")
    (tmp_path / "folder.conflist").mkdir()
    networks, errors = lists.scan(str(tmp_path))
    assert [network.name for network in networks] == ["b", "d", "c", "a"]
    assert not errors
    assert (networks[3].version, networks[2].version) == ("0.4.0", "0.1.0")


def test_a_single_plugin_becomes_a_list(tmp_path: Path) -> None:
    conf = {"cniVersion": "0.4.0", "name": "a", "type": "loopback", "more": 1}
    network = lists.read(str(write(tmp_path / "a.conf", conf)))
    assert network.plugins == [conf]
    assert json.loads(network.data) == {"cniVersion": "0.4.0", "name": "a", "plugins": [conf]}


@pytest.mark.parametrize(("document", "where"), [({"type": "x"}, "/name"), ({"name": "n"}, "/type"), ([], "not an object")])
def test_a_single_plugin_that_is_none(tmp_path: Path, document: Any, where: str) -> None:
    path = write(tmp_path / "a.conf", document)
    with pytest.raises(Error) as caught:
        lists.read(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert where in str(caught.value)


def test_the_first_of_a_name_wins(tmp_path: Path) -> None:
    write(tmp_path / "2.conflist", a_list("net", cniVersion="0.4.0"))
    write(tmp_path / "1.conflist", a_list("net", cniVersion="1.0.0"))
    write(tmp_path / "0.conf", {"name": "net", "type": "x"})
    assert lists.load(str(tmp_path), "net").path == str(tmp_path / "1.conflist")


def test_a_broken_file_does_not_hide_another_network(tmp_path: Path) -> None:
    """libcni gives up at the first one."""
    write(tmp_path / "1.conflist", "{")
    write(tmp_path / "2.conflist", a_list("net"))
    assert lists.load(str(tmp_path), "net").name == "net"
    with pytest.raises(Error, match="but a file with an error: .*/1.conflist: line 1"):
        lists.load(str(tmp_path), "other")


def test_networks_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(Error, match="there are no networks"):
        lists.load(str(tmp_path / "nowhere"), "net")
    write(tmp_path / "2.conflist", a_list("one"))
    with pytest.raises(Error, match=r"no network 'net' \(there are: one\)"):
        lists.load(str(tmp_path), "net")
    with pytest.raises(Error) as caught:
        lists.read(str(tmp_path / "x.conflist"))
    assert caught.value.code == IO_FAILURE


# Plugins in files of their own.


def test_drop_in_plugins_are_appended_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "10-net.conflist", a_list())
    write(tmp_path / "net" / "20-b.conf", {"type": "tuning"})
    write(tmp_path / "net" / "10-a.conf", {"type": "bandwidth", "x": 1})
    write(tmp_path / "net" / "30-c.json", {"type": "not-read"})
    write(tmp_path / "other" / "10.conf", {"type": "not-read"})
    network = lists.read(str(path))
    assert network.types() == ["bridge", "portmap", "bandwidth", "tuning"]
    assert lists.parse(network.data, "the cache").types() == network.types()
    assert lists.drop_in_folders(str(tmp_path)) == [str(tmp_path / "net"), str(tmp_path / "other")]


def test_drop_in_plugins_alone_are_a_network(tmp_path: Path) -> None:
    path = write(tmp_path / "net.conflist", {"cniVersion": "1.1.0", "name": "net"})
    with pytest.raises(Error, match="there are no plugins"):
        lists.read(str(path))
    write(tmp_path / "net" / "a.conf", {"type": "bandwidth"})
    assert lists.read(str(path)).types() == ["bandwidth"]


def test_drop_in_plugins_can_be_kept_out(tmp_path: Path) -> None:
    path = write(tmp_path / "net.conflist", a_list(loadOnlyInlinedPlugins=True))
    write(tmp_path / "net" / "a.conf", "{")
    assert lists.read(str(path)).types() == ["bridge", "portmap"]


@pytest.mark.parametrize(("text", "word"), [("{", "line 1"), ("{}", "/type"), ("[]", "not an object")])
def test_a_broken_drop_in_is_named(tmp_path: Path, text: str, word: str) -> None:
    path = write(tmp_path / "net.conflist", a_list())
    broken = write(tmp_path / "net" / "a.conf", text)
    with pytest.raises(Error) as caught:
        lists.read(str(path))
    assert str(caught.value).startswith(f"{broken}: ")
    assert word in str(caught.value)
