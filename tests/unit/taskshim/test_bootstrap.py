"""How containerd starts a shim, in each of its versions."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.errors import Error
from ocirt_api.messages.bootstrap import BootstrapParams, BootstrapResult, Extension
from ocirt_api.messages.google import Any
from ocirt_api.messages.options import Options, RuntimeOptions
from ocirt_shim.task import bootstrap
from ocirt_shim.task.bootstrap import Asked

FLAGS = ["-namespace", "ns", "-address", "/run/c.sock", "-publish-binary", "/usr/bin/containerd", "-id", "one"]
ENVIRONMENT = {"TTRPC_ADDRESS": "/run/c.sock.ttrpc"}


def asked(data: bytes = b"", more: tuple[str, ...] = (), **environment: str) -> Asked:
    found = bootstrap.read([*FLAGS, *more, "start"], {**ENVIRONMENT, **environment})
    bootstrap.check(found)
    bootstrap.take_input(found, data)
    return found


def test_the_oldest_form() -> None:
    """containerd 1.6: options on standard input, the address alone as the answer."""
    found = asked(Any.of(Options(root="/r", systemd_cgroup=True)).encode(), ("-debug",))
    assert (found.id, found.namespace, found.address, found.events) == ("one", "ns", "/run/c.sock", "/run/c.sock.ttrpc")
    assert (found.options.root, found.options.systemd_cgroup, found.debug) == ("/r", True, True)
    assert bootstrap.answer(found, "unix:///s") == b"unix:///s"


@pytest.mark.parametrize(("said", "version"), [("2", 2), ("3", 3), ("9", 3), ("1", 2)])
def test_the_form_in_json(said: str, version: int) -> None:
    """containerd 1.7 to 2.2."""
    found = asked(MAX_SHIM_VERSION=said)
    assert json.loads(bootstrap.answer(found, "unix:///s")) == {"version": version, "address": "unix:///s", "protocol": "ttrpc"}


def test_the_newest_form() -> None:
    """containerd 2.3 and later."""
    params = BootstrapParams(
        instance_id="one",
        namespace="ns",
        log_level=-4,
        containerd_grpc_address="/other.sock",
        containerd_ttrpc_address="/other.sock.ttrpc",
        socket_dir="/s",
        extensions=[Extension(), Extension(value=Any.of(RuntimeOptions())), Extension(value=Any.of(Options(shim_cgroup="/a")))],
    )
    found = asked(params.encode(), MAX_SHIM_VERSION="2")
    assert (found.address, found.events, found.debug, found.sockets) == ("/other.sock", "/other.sock.ttrpc", True, "/s")
    assert found.options.shim_cgroup == "/a"
    assert bootstrap.socket_path(found, "one").startswith("/s/ocirt-")
    result = BootstrapResult.decode(bootstrap.answer(found, "unix:///s"))
    assert (result.version, result.address, result.protocol) == (3, "unix:///s", "ttrpc")


def test_options_are_not_taken_for_parameters() -> None:
    """Of an Any the first field is a text, too."""
    for value in (Options(binary_name="runc"), RuntimeOptions(type_url="x", config_path="/y")):
        found = asked(Any.of(value).encode(), MAX_SHIM_VERSION="2")
        assert found.form == "json"
    assert found.options == Options()  # those of another type are not for us
    other = BootstrapParams(instance_id="other", namespace="ns", containerd_grpc_address="/x")
    assert asked(other.encode(), MAX_SHIM_VERSION="2").address == "/run/c.sock"


def test_bytes_that_are_nothing() -> None:
    with pytest.raises(Error, match="standard input"):
        asked(b"\xff\xff\xff")
    broken = Any(type_url=Options.TYPE_URL, value=b"\xff\xff\xff")
    with pytest.raises(Error, match="options"):
        bootstrap.options_of(broken)


@given(st.binary(max_size=64))
def test_any_input(data: bytes) -> None:
    """What containerd would never send is refused, or is nothing."""
    try:
        found = asked(data)
    except Error as err:
        assert err.code == "invalid"
    else:
        assert found.form in ("address", "protobuf")


def test_flags_as_go_has_them() -> None:
    words = ["--namespace=ns", "-id=one", "-debug=false", "--address", "/a", "-info", "start", "-debug"]
    found = bootstrap.read(words, {})
    assert (found.namespace, found.id, found.debug, found.address, found.info) == ("ns", "one", False, "/a", True)
    assert found.events == "/a.ttrpc"
    assert bootstrap.read(["-v"], {}).version
    assert bootstrap.read(["-id", "x", "--", "delete"], {}).action == "delete"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-what", "start"], "not defined: -what"),
        (["-id"], "needs an argument: -id"),
        ([*FLAGS], "start or delete"),
        ([*FLAGS, "stop"], "'stop'"),
        (["-namespace", "ns", "start"], "-id"),
        (["-id", "one", "start"], "-namespace"),
        (["-namespace", "ns", "-id", "../x", "start"], "-id"),
    ],
)
def test_wrong_words(words: list[str], said: str) -> None:
    with pytest.raises(Error, match=said) as caught:
        bootstrap.check(bootstrap.read(words, {}))
    assert caught.value.code == "usage"


def test_groups() -> None:
    found = asked()
    assert bootstrap.group(found, {}) == "one"
    assert bootstrap.group(found, {"io.kubernetes.cri.sandbox-id": "pod", "a": "b"}) == "pod"
    assert bootstrap.group(found, {"io.kubernetes.cri.sandbox-id": "pod", "io.containerd.runc.v2.group": "g"}) == "g"


def test_sockets() -> None:
    """Another one for each containerd, namespace and group, and short enough."""
    other, elsewhere = asked(), asked()
    other.namespace, elsewhere.address = "n", "/run/d.sock"
    paths = [bootstrap.socket_path(asked(), "g"), bootstrap.socket_path(asked(), "h")]
    paths += [bootstrap.socket_path(other, "g"), bootstrap.socket_path(elsewhere, "g")]
    assert len(set(paths)) == 4
    assert all(len(path) < 107 for path in paths)
    assert paths[0] == bootstrap.socket_path(asked(), "g")
