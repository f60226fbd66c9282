"""Command, environment, directory, limits, signals, logs: what of the process is the image's, and what the request's."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt.errors import Error
from ocirt.jsonlite import loads
from ocirt.spec.signals import RTMAX, RTMIN
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec import signals
from ocirt_cri.spec.document import encode
from ocirt_cri.spec.execprocess import exec_process
from ocirt_cri.spec.rlimits import BASELINE
from tests.unit.cri.spec.requests import config, image, made, pod, pod_config, refused, with_host, with_settings

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "command", "args", "wanted"),
    [
        (None, ("sh",), [], [], ["sh"]),
        (("e", "1"), None, [], [], ["e", "1"]),
        (("e",), ("c",), [], [], ["e", "c"]),
        (("e",), ("c",), [], ["a"], ["e", "a"]),
        (("e",), ("c",), ["k"], [], ["k"]),
        (("e",), ("c",), ["k"], ["a", "b"], ["k", "a", "b"]),
        (None, ("c",), [], ["a"], ["a"]),
        (("",), ("c",), [], [], ["c"]),
        ((), ("c",), [], [], ["c"]),
        (("e",), ("c",), ["k"], [""], ["k", ""]),
    ],
)
def test_command(entrypoint: Any, cmd: Any, command: list[str], args: list[str], wanted: list[str]) -> None:
    found = made(config(command=command, args=args), image=image(entrypoint=entrypoint, cmd=cmd))
    assert found.document["process"]["args"] == wanted


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "request_", "field"),
    [
        (None, None, {}, "config.command"),
        (("",), (), {}, "config.command"),
        (("", "x"), (), {}, "config.image"),
        (None, ("c",), {"command": [""]}, "config.command"),
        (None, ("c",), {"args": [""]}, "config.args"),
    ],
)
def test_no_command(entrypoint: Any, cmd: Any, request_: dict[str, Any], field: str) -> None:
    refused(lambda: made(config(**request_), image=image(entrypoint=entrypoint, cmd=cmd)), field)


def variables(**pairs: bytes) -> list[cri.KeyValue]:
    return [cri.KeyValue(key=name, value=value) for name, value in pairs.items()]


def test_environment_order() -> None:
    """What nobody says, the image's, the request's; the last of a name, in the place of the first."""
    given = config(envs=[*variables(B=b"2", HOSTNAME=b"mine"), *variables(B=b"3")], tty=True)
    found = made(given, image=image(env=("A=1", "PATH=/image", "B=0")))
    assert found.document["process"]["env"] == ["PATH=/image", "TERM=xterm", "HOSTNAME=mine", "A=1", "B=3"]


def test_environment_of_nobody() -> None:
    assert made().document["process"]["env"] == [PATH, "HOSTNAME=web"]


def test_environment_of_a_pod_in_the_nodes_network() -> None:
    given = pod_config(
        linux=cri.LinuxPodSandboxConfig(
            security_context=cri.LinuxSandboxSecurityContext(namespace_options=cri.NamespaceOption(network=cri.NODE))
        )
    )
    assert made(of=pod(given, hostname="")).document["process"]["env"][-1] == "HOSTNAME=node-1"


def test_what_an_image_has_that_is_no_variable() -> None:
    found = made(image=image(env=("NAME", "=x", "OK=1", "", "E=")))
    assert found.document["process"]["env"] == [PATH, "HOSTNAME=web", "OK=1", "E="]


@pytest.mark.parametrize("value", [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"caf\xc3\xa9 \xfe", bytes(range(1, 256))])
def test_bytes_that_are_not_text(value: bytes) -> None:
    """They reach execve(2) as they are."""
    data = encode(made(config(envs=variables(X=value))).document)
    entry = loads(data, any_bytes=True)["process"]["env"][-1]
    assert entry.encode("utf-8", "surrogateescape") == b"X=" + value
    with pytest.raises(Error, match="UTF-8"):
        loads(encode({"x": value.decode("utf-8", "surrogateescape") + "\udcff"}))


@pytest.mark.parametrize(
    ("of_image", "asked", "wanted"),
    [("", "", "/"), ("/srv", "", "/srv"), ("app", "", "/app"), ("/srv", "/x/../y/", "/y"), ("//a//b", "", "/a/b")],
)
def test_directory(of_image: str, asked: str, wanted: str) -> None:
    found = made(config(working_dir=asked), image=image(working_dir=of_image))
    assert found.document["process"]["cwd"] == wanted


def test_terminal() -> None:
    assert made(config(tty=True)).document["process"]["terminal"] is True
    assert made(config(stdin=True)).document["process"]["terminal"] is False


def test_limits_are_ours() -> None:
    """All that a process can inherit is written down, but for the one that depends on the machine's memory."""
    found = {one["type"]: (one["soft"], one["hard"]) for one in made().document["process"]["rlimits"]}
    assert found == BASELINE
    assert len(found) == 15
    assert found["RLIMIT_NOFILE"] == (1024, 524288)
    changed = made(settings=with_settings(rlimits={"RLIMIT_NOFILE": (5, 6)})).document["process"]["rlimits"]
    assert {"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6} in changed
    assert len(changed) == 15
    bounded = made(host=with_host(hard_limits={"RLIMIT_NOFILE": 1000, "RLIMIT_CORE": 5, "RLIMIT_CPU": 1 << 64}))
    found = {one["type"]: (one["soft"], one["hard"]) for one in bounded.document["process"]["rlimits"]}
    assert found == BASELINE | {"RLIMIT_NOFILE": (1000, 1000), "RLIMIT_CORE": (5, 5)}


@pytest.mark.parametrize(
    ("asked", "of_image", "number", "status"),
    [
        (cri.SIGNAL_RUNTIME_DEFAULT, "", 15, cri.SIGNAL_SIGTERM),
        (cri.SIGNAL_RUNTIME_DEFAULT, "SIGQUIT", 3, cri.SIGNAL_SIGQUIT),
        (cri.SIGNAL_RUNTIME_DEFAULT, "quit", 3, cri.SIGNAL_SIGQUIT),
        (cri.SIGNAL_RUNTIME_DEFAULT, "9", 9, cri.SIGNAL_SIGKILL),
        (cri.SIGNAL_RUNTIME_DEFAULT, "SIGRTMIN+3", RTMIN + 3, cri.SIGNAL_SIGRTMINPLUS3),
        (cri.SIGNAL_RUNTIME_DEFAULT, "nonsense", 15, cri.SIGNAL_SIGTERM),
        (cri.SIGNAL_RUNTIME_DEFAULT, "0", 15, cri.SIGNAL_SIGTERM),
        (cri.SIGNAL_SIGUSR1, "SIGQUIT", 10, cri.SIGNAL_SIGUSR1),
        (cri.SIGNAL_SIGRTMINPLUS15, "", RTMIN + 15, cri.SIGNAL_SIGRTMINPLUS15),
        (cri.SIGNAL_SIGRTMAXMINUS14, "", RTMAX - 14, cri.SIGNAL_SIGRTMAXMINUS14),
        (cri.SIGNAL_SIGRTMAX, "", RTMAX, cri.SIGNAL_SIGRTMAX),
        (cri.SIGNAL_SIGIOT, "", 6, cri.SIGNAL_SIGIOT),
    ],
)
def test_stop_signal(asked: cri.Signal.ValueType, of_image: str, number: int, status: cri.Signal.ValueType) -> None:
    found = made(config(stop_signal=asked), image=image(stop_signal=of_image)).stop_signal
    assert (found.number, found.status) == (number, status)


def test_every_signal_has_a_number() -> None:
    found = {cri.Signal.Name(value): signals.number(value) for value in cri.Signal.values() if value}
    assert len(found) == 65
    assert {*range(1, 32), *range(RTMIN, RTMAX + 1)} == set(found.values())
    for number in set(found.values()):
        assert signals.number(signals.status(number)) == number
    assert signals.status(32) == cri.SIGNAL_RUNTIME_DEFAULT


@pytest.mark.parametrize(
    ("directory", "path", "wanted"),
    [
        ("/var/log/pods/web", "app/0.log", "/var/log/pods/web/app/0.log"),
        ("/var/log/pods/web/", "./app.log", "/var/log/pods/web/app.log"),
        ("/var/log/pods/web", "", ""),
        ("", "app.log", ""),
    ],
)
def test_log(directory: str, path: str, wanted: str) -> None:
    given = pod_config()
    given.log_directory = directory
    assert made(config(log_path=path), of=given).log_path == wanted


def test_hostname() -> None:
    """The pod's namespace has its name already; one of the container's own gets it."""
    assert "hostname" not in made().document
    assert made(of=pod(uts="")).document["hostname"] == "web"


def test_exec() -> None:
    process = made(config(envs=variables(A=b"1"))).document["process"]
    found = exec_process(process, ["id", "-u"])
    assert found == process | {"args": ["id", "-u"]}
    assert process["args"] == ["sh"]
    shell = exec_process(process, ["sh"], terminal=True)
    assert shell["terminal"] is True
    assert shell["env"][-1] == "TERM=xterm"
    assert "TERM=xterm" not in exec_process(process | {"env": ["TERM=vt100"]}, ["sh"], terminal=True)["env"]
    refused(lambda: exec_process(process, []), "cmd")
    refused(lambda: exec_process(process, [""]), "cmd")
    refused(lambda: exec_process(process, ["a", "b\0"]), "cmd[1]")
