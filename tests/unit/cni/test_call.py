"""The parameters of a call."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_cni import call, versions
from ocirt_cni.call import ADD, CHECK, COMMANDS, DEL, GC, STATUS, Attachment, Call
from ocirt_cni.errors import (
    DECODING_FAILURE,
    INCOMPATIBLE_VERSION,
    INVALID_CONFIG,
    INVALID_ENVIRONMENT,
    Error,
)

CONF: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net", "type": "bridge"}
ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/x",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=p",
    "CNI_PATH": "/a:/b::/c",
}


def make(environment: dict[str, str] | None = None, conf: dict[str, Any] | None = None) -> Call:
    return call.from_environment({**ENVIRONMENT, **(environment or {})}, {**CONF, **(conf or {})})


def refused(environment: dict[str, str] | None = None, conf: dict[str, Any] | None = None) -> Error:
    with pytest.raises(Error) as caught:
        make(environment, conf)
    return caught.value


def test_everything() -> None:
    one = make(conf={"runtimeConfig": {"mac": "m"}, "args": {"cni": {"ips": []}}, "prevResult": {"cniVersion": "1.0.0"}})
    assert (one.command, one.container, one.netns, one.ifname) == ("ADD", "c1", "/run/netns/x", "eth0")
    assert one.args == {"IgnoreUnknown": "1", "K8S_POD_NAME": "p"}
    assert one.path == ("/a", "/b", "/c")
    assert (one.network, one.type, one.version) == ("net", "bridge", "1.1.0")
    assert (one.runtime, one.cni_args) == ({"mac": "m"}, {"ips": []})
    assert one.previous is not None
    assert not one.lazy
    assert str(one.attachment) == "net c1 eth0"


def test_a_configuration_without_a_version_is_of_the_first() -> None:
    assert make(conf={"cniVersion": None}).version == "0.1.0"
    assert make(conf={"cniVersion": ""}).version == "0.1.0"


@pytest.mark.parametrize(
    ("environment", "subject", "said"),
    [
        ({"CNI_COMMAND": ""}, "CNI_COMMAND", "'' is none of ADD, DEL, CHECK, GC, STATUS, VERSION"),
        ({"CNI_COMMAND": "add"}, "CNI_COMMAND", "is none of"),
        ({"CNI_CONTAINERID": ""}, "CNI_CONTAINERID", "missing"),
        ({"CNI_CONTAINERID": "-a"}, "CNI_CONTAINERID", "is not a name"),
        ({"CNI_CONTAINERID": "a/b"}, "CNI_CONTAINERID", "is not a name"),
        ({"CNI_CONTAINERID": "é"}, "CNI_CONTAINERID", "is not a name"),
        ({"CNI_CONTAINERID": "a\n"}, "CNI_CONTAINERID", "is not a name"),
        ({"CNI_IFNAME": ""}, "CNI_IFNAME", "missing"),
        ({"CNI_IFNAME": "sixteen-and-more"}, "CNI_IFNAME", "more than 15 bytes"),
        ({"CNI_IFNAME": "é" * 8}, "CNI_IFNAME", "more than 15 bytes"),
        ({"CNI_IFNAME": "."}, "CNI_IFNAME", "cannot be"),
        ({"CNI_IFNAME": ".."}, "CNI_IFNAME", "cannot be"),
        ({"CNI_IFNAME": "a/b"}, "CNI_IFNAME", "cannot be"),
        ({"CNI_IFNAME": "a:b"}, "CNI_IFNAME", "cannot be"),
        ({"CNI_IFNAME": "a b"}, "CNI_IFNAME", "cannot be"),
        ({"CNI_NETNS": ""}, "CNI_NETNS", "ADD needs it"),
        ({"CNI_NETNS": "", "CNI_COMMAND": "CHECK"}, "CNI_NETNS", "CHECK needs it"),
        ({"CNI_ARGS": "a"}, "CNI_ARGS", "'a' is not KEY=VALUE"),
        ({"CNI_ARGS": "a=b;;c=d"}, "CNI_ARGS", "'' is not KEY=VALUE"),
    ],
)
def test_an_environment_that_is_refused(environment: dict[str, str], subject: str, said: str) -> None:
    error = refused(environment)
    assert (error.code, error.subject) == (INVALID_ENVIRONMENT, subject)
    assert said in str(error)


@pytest.mark.parametrize("missing", ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"])
def test_what_has_to_be_set(missing: str) -> None:
    environment = {key: value for key, value in ENVIRONMENT.items() if key != missing}
    with pytest.raises(Error) as caught:
        call.from_environment(environment, CONF)
    assert (caught.value.code, caught.value.subject) == (INVALID_ENVIRONMENT, missing)


def test_what_may_be_missing() -> None:
    environment = {key: ENVIRONMENT[key] for key in ("CNI_CONTAINERID", "CNI_IFNAME")}
    one = call.from_environment({**environment, "CNI_COMMAND": "DEL"}, CONF)
    assert (one.netns, one.args, one.path) == ("", {}, ())
    for command in (GC, STATUS):
        assert call.from_environment({"CNI_COMMAND": command}, CONF).container == ""


def test_gc_and_status_know_no_container() -> None:
    """A runtime may leave variables of another call in the environment."""
    for command in (GC, STATUS):
        one = make({"CNI_COMMAND": command, "CNI_CONTAINERID": "/", "CNI_IFNAME": "/"})
        assert (one.container, one.netns, one.ifname) == ("", "", "")


@pytest.mark.parametrize(
    ("conf", "code", "subject"),
    [
        ({"name": None}, INVALID_CONFIG, "/name"),
        ({"name": ""}, INVALID_CONFIG, "/name"),
        ({"name": "a b"}, INVALID_CONFIG, "/name"),
        ({"name": "_a"}, INVALID_CONFIG, "/name"),
        ({"name": "../a"}, INVALID_CONFIG, "/name"),
        ({"name": 7}, INVALID_CONFIG, "/name"),
        ({"cniVersion": "9.0.0"}, INCOMPATIBLE_VERSION, "/cniVersion"),
        ({"cniVersion": 1}, INVALID_CONFIG, "/cniVersion"),
        ({"prevResult": []}, INVALID_CONFIG, "/prevResult"),
        ({"prevResult": {"cniVersion": "1.0.0", "ips": [{}]}}, DECODING_FAILURE, "/prevResult/ips/0/address"),
        ({"prevResult": {"cniVersion": "7"}}, INCOMPATIBLE_VERSION, "/cniVersion"),
    ],
)
def test_a_configuration_that_is_refused(conf: dict[str, Any], code: int, subject: str) -> None:
    error = refused(conf=conf)
    assert (error.code, error.subject) == (code, subject)


@pytest.mark.parametrize(
    ("command", "since"), [(ADD, "0.1.0"), (DEL, "0.1.0"), (CHECK, "0.4.0"), (GC, "1.1.0"), (STATUS, "1.1.0")]
)
def test_what_each_version_allows(command: str, since: str) -> None:
    for version in versions.SUPPORTED:
        if versions.at_least(version, since):
            make({"CNI_COMMAND": command}, {"cniVersion": version})
        else:
            error = refused({"CNI_COMMAND": command}, {"cniVersion": version})
            assert (error.code, error.message) == (INCOMPATIBLE_VERSION, f"config version does not allow {command}")


def test_fields_of_the_wrong_kind() -> None:
    one = make(conf={"runtimeConfig": [], "args": {"cni": 1}})
    with pytest.raises(Error) as caught:
        _ = one.runtime
    assert (caught.value.code, caught.value.subject) == (INVALID_CONFIG, "/runtimeConfig")
    with pytest.raises(Error) as caught:
        _ = one.cni_args
    assert (caught.value.code, caught.value.subject) == (INVALID_CONFIG, "/args/cni")


def test_null_counts_as_absent() -> None:
    one = make(conf={"runtimeConfig": None, "args": None, "prevResult": None})
    assert (one.runtime, one.cni_args, one.previous) == ({}, {}, None)


@pytest.mark.parametrize("key", ["cni.dev/attachments", "cni.dev/valid-attachments"])
def test_valid_attachments(key: str) -> None:
    one = make({"CNI_COMMAND": GC}, {key: [{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "x"}]})
    assert one.valid == {("a", "eth0"), ("b", "x")}
    assert make({"CNI_COMMAND": GC}).valid == frozenset()


def test_both_names_of_the_list_count() -> None:
    first, second = ({"containerID": name, "ifname": "eth0"} for name in "ab")
    one = make({"CNI_COMMAND": GC}, {"cni.dev/attachments": [first], "cni.dev/valid-attachments": [second]})
    assert one.valid == {("a", "eth0"), ("b", "eth0")}


@pytest.mark.parametrize(
    ("value", "subject"),
    [
        ({}, "/cni.dev~1attachments"),
        (["a"], "/cni.dev~1attachments/0"),
        ([{"containerID": 1}], "/cni.dev~1attachments/0/containerID"),
    ],
)
def test_attachments_that_are_refused(value: Any, subject: str) -> None:
    one = make({"CNI_COMMAND": GC}, {"cni.dev/attachments": value})
    with pytest.raises(Error) as caught:
        _ = one.valid
    assert (caught.value.code, caught.value.subject) == (INVALID_CONFIG, subject)


def test_derived() -> None:
    one = Call(ADD, CONF, container="c", netns="/n", ifname="e", args={"a": "b"}, path=("/p",), lazy=True, link="v")
    other = one.derived({**CONF, "type": "ptp"}, DEL)
    assert (other.command, other.type) == (DEL, "ptp")
    for name in ("container", "netns", "ifname", "args", "path", "lazy", "link"):
        assert getattr(other, name) == getattr(one, name)
    assert one.derived(CONF).command == ADD


NAMES = st.text(alphabet="abcXYZ019_.-", min_size=1, max_size=20).filter(lambda text: text[0] not in "_.-")
IFNAMES = st.text(alphabet="abcXYZ019_.-@", min_size=1, max_size=15).filter(lambda text: text not in (".", ".."))


@given(NAMES, NAMES, IFNAMES)
def test_an_attachment_is_read_as_it_was_written(network: str, container: str, ifname: str) -> None:
    one = Attachment(network, container, ifname)
    parsed = Attachment.parse(str(one))
    assert parsed == one
    assert hash(parsed) == hash(one)
    made = Call(ADD, {**CONF, "name": network}, container=container, netns="/n", ifname=ifname)
    assert made.attachment == one


@pytest.mark.parametrize("text", ["", "a", "a b", "a b c d"])
def test_what_is_no_attachment(text: str) -> None:
    assert Attachment.parse(text) is None


@given(st.dictionaries(st.text(alphabet="abcKEY_", min_size=1), st.text(alphabet="ab=,/.: ")))
def test_args(args: dict[str, str]) -> None:
    assert call.parse_args(";".join(f"{key}={value}" for key, value in args.items())) == args


@given(
    st.dictionaries(st.sampled_from(sorted(ENVIRONMENT)), st.text(max_size=8) | st.sampled_from(COMMANDS)),
    st.dictionaries(
        st.sampled_from(["cniVersion", "name", "type", "prevResult", "runtimeConfig", "args"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=5)
        | st.just({})
        | st.just([])
        | st.sampled_from(versions.SUPPORTED),
    ),
)
def test_anything_is_a_call_or_an_error(environment: dict[str, str], conf: dict[str, Any]) -> None:
    try:
        one = make(environment, conf)
    except Error as err:
        assert err.subject
        assert err.code in (INVALID_CONFIG, INVALID_ENVIRONMENT, INCOMPATIBLE_VERSION, DECODING_FAILURE)
    else:
        assert one.network


def test_capabilities_in_the_spelling_of_containerd() -> None:
    """It writes the fields of capabilities as Go's structures have them, and null for what it has not."""
    ports = [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}]
    given = {
        "portMappings": ports,
        "bandwidth": {"IngressRate": 8},
        "ipRanges": [[{"Subnet": "10.1.0.0/24"}]],
        "dns": {"Servers": None},
    }
    assert make(conf={"runtimeConfig": given}).runtime == {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}],
        "bandwidth": {"ingressRate": 8},
        "ipRanges": [[{"subnet": "10.1.0.0/24"}]],
        "dns": {"servers": None},
    }
