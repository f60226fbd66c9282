"""From an image's configuration to config.json."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt.spec.check import check
from ocirt_images.bundle import Options, User, read_entrypoint, read_env, runtime_config
from ocirt_images.bundle.config import CAPABILITIES, PATH, command
from ocirt_images.config import ImageConfig
from ocirt_images.errors import Error
from ocirt_images.fields import Json
from ocirt_images.platforms import Platform
from ocirt_images.snapshots.namespace import Mappings
from tests.support.layers import image_config

NAME = "docker.io/library/box:latest"
MAPPINGS = Mappings(((0, 1000, 1), (1, 100000, 65536)), ((0, 1000, 1), (1, 100000, 65536)))


def made(image: ImageConfig, user: User | None = None, **given: Any) -> Json:
    """The config.json, which the runtime takes without a finding."""
    options = Options(**given)
    config = runtime_config(image, options, user or User(), subject=NAME)
    assert check(config, rootless=options.unprivileged and not options.entered) == []
    return config


# The table of the Dockerfile reference ("Understand how CMD and ENTRYPOINT interact"). What a shell form becomes in an image:
SHELL = ("/bin/sh", "-c")
CMD = {"absent": None, "exec": ("exec_cmd", "p1_cmd"), "shell": (*SHELL, "exec_cmd p1_cmd")}
ENTRYPOINT = {"absent": None, "exec": ("exec_entry", "p1_entry"), "shell": (*SHELL, "exec_entry p1_entry")}
TABLE = {
    ("absent", "absent"): None,
    ("absent", "shell"): (*SHELL, "exec_entry p1_entry"),
    ("absent", "exec"): ("exec_entry", "p1_entry"),
    ("exec", "absent"): ("exec_cmd", "p1_cmd"),
    # The reference leaves out what the shell gets as $0 and $1, and makes nothing of.
    ("exec", "shell"): (*SHELL, "exec_entry p1_entry", "exec_cmd", "p1_cmd"),
    ("exec", "exec"): ("exec_entry", "p1_entry", "exec_cmd", "p1_cmd"),
    ("shell", "absent"): (*SHELL, "exec_cmd p1_cmd"),
    ("shell", "shell"): (*SHELL, "exec_entry p1_entry", *SHELL, "exec_cmd p1_cmd"),
    ("shell", "exec"): ("exec_entry", "p1_entry", *SHELL, "exec_cmd p1_cmd"),
}


@pytest.mark.parametrize(("cmd", "entrypoint"), TABLE)
def test_cmd_and_entrypoint(cmd: str, entrypoint: str) -> None:
    wanted = TABLE[cmd, entrypoint]
    if wanted is not None:
        assert command(ENTRYPOINT[entrypoint], CMD[cmd], Options(), NAME) == wanted
        return
    with pytest.raises(Error) as caught:
        command(None, None, Options(), NAME)
    expected = f"{NAME}: no command: the image has neither Entrypoint nor Cmd (give one: -- COMMAND)"
    assert (caught.value.code, str(caught.value)) == ("invalid", expected)


@pytest.mark.parametrize("cmd", CMD)
@pytest.mark.parametrize("entrypoint", ENTRYPOINT)
def test_arguments_replace_cmd(cmd: str, entrypoint: str) -> None:
    args = ("ls", "-l")
    assert command(ENTRYPOINT[entrypoint], CMD[cmd], Options(args=args), NAME) == (*(ENTRYPOINT[entrypoint] or ()), *args)


@pytest.mark.parametrize("cmd", CMD)
@pytest.mark.parametrize("entrypoint", ENTRYPOINT)
def test_an_entrypoint_replaces_both(cmd: str, entrypoint: str) -> None:
    assert command(ENTRYPOINT[entrypoint], CMD[cmd], Options(entrypoint=("mine",)), NAME) == ("mine",)
    assert command(ENTRYPOINT[entrypoint], CMD[cmd], Options(entrypoint=("mine", "-x"), args=("y",)), NAME) == ("mine", "-x", "y")
    assert command(ENTRYPOINT[entrypoint], CMD[cmd], Options(entrypoint=(), args=("y",)), NAME) == ("y",)
    with pytest.raises(Error, match="no command: an entrypoint was given that is empty"):
        command(ENTRYPOINT[entrypoint], CMD[cmd], Options(entrypoint=()), NAME)


def test_empty_lists_are_no_command() -> None:
    with pytest.raises(Error, match="no command"):
        command((), (), Options(), NAME)
    assert command((), ("a",), Options(), NAME) == ("a",)
    with pytest.raises(Error, match="no command"):
        command(None, ("",), Options(), NAME)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", ()), ("/bin/x", ("/bin/x",)), ("/bin/x -y", ("/bin/x -y",)), ('["/bin/x", "-y"]', ("/bin/x", "-y")), ("[]", ())],
)
def test_an_entrypoint_as_it_is_typed(text: str, words: tuple[str, ...]) -> None:
    assert read_entrypoint(text) == words


@pytest.mark.parametrize("text", ["[", "[1]", '["a"', "[null]"])
def test_an_entrypoint_that_is_none(text: str) -> None:
    with pytest.raises(Error, match="--entrypoint .*: not a JSON list of strings"):
        read_entrypoint(text)


def test_environment() -> None:
    image = image_config(env=("A=image", "B=image=more", "C="))
    assert made(image, env=("A=caller", "D=caller"))["process"]["env"] == [PATH, "A=caller", "B=image=more", "C=", "D=caller"]
    assert made(image_config(env=("PATH=/only",)))["process"]["env"] == ["PATH=/only"]
    assert made(image_config(), terminal=True)["process"]["env"] == [PATH, "TERM=xterm"]
    assert made(image_config(env=("TERM=vt100",)), terminal=True)["process"]["env"] == [PATH, "TERM=vt100"]
    assert made(image_config(env=("A=1", "A=2")))["process"]["env"] == [PATH, "A=2"]


def test_environment_of_the_caller() -> None:
    assert read_env(("A=1", "HOME", "NOT_THERE", "B="), {"HOME": "/root", "A": "2"}) == ("A=1", "HOME=/root", "B=")


@pytest.mark.parametrize("entry", ["NAME", "=value", ""])
def test_an_environment_that_is_none(entry: str) -> None:
    with pytest.raises(Error) as caught:
        made(image_config(env=("A=1", entry)))
    assert (caught.value.code, caught.value.subject) == ("invalid", f"{NAME}/config/Env/1")
    with pytest.raises(Error, match="not NAME=VALUE") as caught:
        Options(env=(entry,))
    assert caught.value.code == "usage"


@pytest.mark.parametrize(
    ("says", "given", "cwd"),
    [
        ("", "", "/"),
        ("/app", "", "/app"),
        ("/app/", "", "/app"),
        ("/a/../b//c/.", "", "/b/c"),
        ("//app", "", "/app"),
        ("app", "", "/app"),
        ("/../..", "", "/"),
        ("/app", "/mine", "/mine"),
    ],
)
def test_working_directory(says: str, given: str, cwd: str) -> None:
    assert made(image_config(working_dir=says), cwd=given)["process"]["cwd"] == cwd


def test_wrong_options() -> None:
    with pytest.raises(Error, match="working directory 'x': not an absolute path"):
        Options(cwd="x")
    with pytest.raises(Error, match="--network 'bridge' \\(none or host\\)"):
        Options(network="bridge")


def test_annotations() -> None:
    image = image_config(
        platform=Platform("linux", "arm", "v7", "10.1", ("a", "b")),
        created="2026-01-02T03:04:05Z",
        stop_signal="SIGQUIT",
        exposed_ports=("80/tcp", "9/udp"),
        labels={"maintainer": "me", "org.opencontainers.image.created": "long ago", "": "nameless", "org.ocirt.mine": "theirs"},
        raw={"author": "somebody"},
    )
    prefix = "org.opencontainers.image."
    assert made(image, annotations=(("org.ocirt.mine", "ours"),))["annotations"] == {
        prefix + "os": "linux",
        prefix + "architecture": "arm",
        prefix + "variant": "v7",
        prefix + "os.version": "10.1",
        prefix + "os.features": "a,b",
        prefix + "author": "somebody",
        prefix + "created": "long ago",
        prefix + "stopSignal": "SIGQUIT",
        prefix + "exposedPorts": "80/tcp,9/udp",
        "maintainer": "me",
        "org.ocirt.mine": "ours",
    }
    assert made(image_config(raw={"author": 3}))["annotations"] == {prefix + "os": "linux", prefix + "architecture": "amd64"}


def test_root() -> None:
    config = made(image_config())
    process = config["process"]
    assert process["user"] == {"uid": 0, "gid": 0, "additionalGids": [0]}
    assert process["capabilities"] == {name: list(CAPABILITIES) for name in ("bounding", "effective", "permitted")}
    assert (process["terminal"], process["noNewPrivileges"]) == (False, False)
    assert config["root"] == {"path": "rootfs", "readonly": False}
    assert [entry["type"] for entry in config["linux"]["namespaces"]] == ["pid", "ipc", "uts", "mount", "cgroup", "network"]
    assert config["hostname"] == "ocirt"
    assert len(CAPABILITIES) == 14


def test_another_user() -> None:
    """Who is not root has no capability, but may get those of the bounding set by a set-user-ID program."""
    process = made(image_config(), User(1000, 1000, (1000, 29)))["process"]
    assert process["user"] == {"uid": 1000, "gid": 1000, "additionalGids": [1000, 29]}
    assert list(process["capabilities"]) == ["bounding"]


def test_a_read_only_root_has_volumes_that_can_be_written_to() -> None:
    image = image_config(volumes=("/data", "/var//lib/x/"))
    assert not {"/data", "/var/lib/x"} & {mount["destination"] for mount in made(image)["mounts"]}
    config = made(image, read_only=True)
    assert config["root"]["readonly"] is True
    found = {mount["destination"]: mount for mount in config["mounts"][-2:]}
    assert list(found) == ["/data", "/var/lib/x"]
    assert found["/data"]["type"] == "tmpfs"
    assert "tmpcopyup" in found["/data"]["options"]


@pytest.mark.parametrize("path", ["data", "/", "/x/..", ""])
def test_no_place_for_a_volume(path: str) -> None:
    with pytest.raises(Error) as caught:
        made(image_config(volumes=(path,)), read_only=True)
    assert caught.value.subject == f"{NAME}/config/Volumes"


def test_the_network_of_the_host() -> None:
    config = made(image_config(), network="host")
    assert "network" not in {entry["type"] for entry in config["linux"]["namespaces"]}
    assert {"/etc/resolv.conf", "/etc/hosts"} <= {mount["destination"] for mount in config["mounts"]}
    assert not {"/etc/resolv.conf", "/etc/hosts"} & {mount["destination"] for mount in made(image_config())["mounts"]}


def test_rootless() -> None:
    config = made(image_config(), unprivileged=True, mappings=MAPPINGS)
    linux = config["linux"]
    assert {"type": "user"} in linux["namespaces"]
    assert {"type": "network"} not in linux["namespaces"]
    assert linux["uidMappings"][1] == {"containerID": 1, "hostID": 100000, "size": 65536}
    assert "resources" not in linux
    assert "additionalGids" not in config["process"]["user"]
    mounts = {mount["destination"]: mount for mount in config["mounts"]}
    assert mounts["/sys"]["type"] == "none"
    assert "gid=5" in mounts["/dev/pts"]["options"]
    alone = made(image_config(), unprivileged=True, mappings=Mappings(((0, 1000, 1),), ((0, 1000, 1),)))
    assert "gid=5" not in next(mount for mount in alone["mounts"] if mount["destination"] == "/dev/pts")["options"]


def test_a_namespace_that_the_runtime_is_in() -> None:
    """None is made, but its ids are all there are."""
    config = made(image_config(), unprivileged=True, mappings=MAPPINGS, entered=True)
    assert "user" not in {entry["type"] for entry in config["linux"]["namespaces"]}
    assert "uidMappings" not in config["linux"]
    with pytest.raises(Error, match="user 70000 is not in the user namespace"):
        made(image_config(), User(70000), unprivileged=True, mappings=MAPPINGS, entered=True)


def test_a_user_that_is_not_mapped() -> None:
    mappings = Mappings(((0, 1000, 1),), ((0, 1000, 1),))
    with pytest.raises(Error, match="user 33 is not in the user namespace: it has 0 .*subuid") as caught:
        made(image_config(), User(33, 33, (33,)), unprivileged=True, mappings=mappings)
    assert caught.value.code == "unsupported"
    with pytest.raises(Error, match="group 70000 is not in the user namespace: it has 0, 1 to 65536"):
        made(image_config(), User(33, 70000), unprivileged=True, mappings=MAPPINGS)
