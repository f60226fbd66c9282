"""Containers of a user who is not root: alone, with subordinate ids, and nested in a user namespace."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.build import ROOT
from tests.support.bundle import Bundle
from tests.support.isolation import mount, umount
from tests.support.runtime import Runtime
from tests.support.terminal import Terminal
from tests.system.conftest import MakeBundle

USER = 65534
MS_BIND = 0x1000
ONE = [{"containerID": 0, "hostID": USER, "size": 1}]
SUBORDINATE = [{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": 200_000, "size": 65_536}]

pytestmark = pytest.mark.ocirt_only("peers differ in what a user may do; these are ocirt's own promises")


@pytest.fixture(scope="module")
def clone() -> Iterator[Path]:
    """The built clone where every user can reach it."""
    directory = Path(tempfile.mkdtemp(prefix="ocirt-test-clone-"))
    directory.chmod(0o755)
    for name in ("build", "ocirt"):
        (directory / name).mkdir()
    shutil.copytree(ROOT / "ocirt", directory / "ocirt", dirs_exist_ok=True)
    for name in ("ocirt", "ocirt-python"):
        shutil.copy2(ROOT / "build" / name, directory / "build" / name)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def rootless(runtime: Runtime, clone: Path, no_leaks: list[Path]) -> Iterator[Runtime]:
    """The runtime, called by a user with an XDG_RUNTIME_DIR of his own."""
    place = Path(tempfile.mkdtemp(prefix="ocirt-test-user-"))
    no_leaks.append(place)
    os.chown(place, USER, USER)
    prefix = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--"]
    user = Runtime([*prefix, str(clone / "build" / "ocirt")], place, runtime.token + "u", None)
    user.env = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(place)}
    yield user
    assert user.clean_up() == []


def owned(made: Bundle, mappings: list[dict[str, int]], **edits: Any) -> Bundle:
    """Give the bundle to the user, with a user namespace and what `ocirt spec --rootless` leaves out left out."""
    for directory, directories, files in os.walk(made.path):
        for name in (".", *directories, *files):
            path = Path(directory, name)
            if not (path.is_file() and path.stat().st_nlink > 1):  # a program is a link to a file of others
                os.lchown(path, USER, USER)

    def fit(config: dict[str, Any]) -> None:
        for each in config["mounts"]:
            if each["destination"] == "/dev/pts":
                each["options"].remove("gid=5")
            elif each["destination"] == "/sys":
                each |= {"type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}
        config["linux"].pop("resources")
        config["process"]["rlimits"] = []

    namespaces = ["pid", "ipc", "uts", "mount", "user"]
    return made.edit(namespaces=namespaces, uidMappings=mappings, gidMappings=mappings, edit=fit, **edits)


def test_the_life_of_a_container(rootless: Runtime, bundle: MakeBundle) -> None:
    """run, create, start, exec with and without a terminal, kill, delete: nothing of it needs root, or a cgroup."""
    made = owned(bundle(), ONE)
    seen = rootless.probe(made)
    assert (seen["uid"], seen["uid_map"].split(), seen["setgroups"]) == ([0] * 3, ["0", str(USER), "1"], "deny")
    assert rootless.shell(made, "exit 42").rc == 42
    rootless.shell(made, "echo x > /written").ok()
    assert (made.rootfs / "written").stat().st_uid == USER
    container = rootless.create(made.edit(args=["sleep", "1000"]))
    assert rootless.status(container) == "created"
    rootless.start(container).ok()
    assert rootless.exec(container, "/bin/probe").ok().json()["uid_map"] == seen["uid_map"]
    with Terminal(rootless.argv("exec", "--tty", container, "tty"), env=rootless.env) as terminal:
        assert terminal.wait() == 0
        assert terminal.output.startswith(b"/dev/pts/0")
    rootless.kill(container, "KILL").ok()
    rootless.delete(container, "--force").ok()
    assert rootless.call("list", "-q").ok().out == ""


def test_subordinate_ids(rootless: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """More than one's own id, by newuidmap(1) and newgidmap(1)."""
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text(f"{USER}:200000:65536\n")
        Path(f"/etc/{name}").touch()
        mount(str(tmp_path / name), f"/etc/{name}", "none", MS_BIND)
    try:
        made = owned(bundle(), SUBORDINATE, user={"uid": 1000, "gid": 1000})
        seen = rootless.probe(made)
        assert seen["uid"] == [1000] * 3
        assert [line.split() for line in seen["uid_map"].split("\n")] == [["0", str(USER), "1"], ["1", "200000", "65536"]]
        (tmp_path / "subuid").write_text("")
        rootless.run(made).failed(r"/linux/uidMappings.*newuidmap", rc=1)
    finally:
        for name in ("subuid", "subgid"):
            umount(f"/etc/{name}")


def test_what_a_user_may_not(rootless: Runtime, bundle: MakeBundle) -> None:
    """Said before anything is made, with the place in config.json and what to do."""
    made = owned(bundle(), ONE)
    kinds = made.config["linux"]["namespaces"]
    rootless.run(made.edit(namespaces=["pid", "ipc", "uts", "mount"])).failed(r"/linux/.*user namespace", rc=1)
    made.edit(namespaces=kinds, user={"uid": 0, "gid": 0, "additionalGids": [0]})
    rootless.run(made).failed(r"/process/user/additionalGids.*groups", rc=1)
    made.edit(user={"uid": 0, "gid": 0}, uidMappings=[{"containerID": 0, "hostID": 0, "size": 1}])
    rootless.run(made).failed(r"/linux/uidMappings", rc=1)
    made.edit(uidMappings=ONE, resources={"memory": {"limit": 1 << 26}})
    rootless.run(made).failed(r"/linux/resources.*cgroup", rc=1)


def test_exec_with_a_score(rootless: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """oomScoreAdj of a process.json: set before anybody is kept from looking in."""
    made = owned(bundle(args=["sleep", "1000"]), ONE)
    container = rootless.run_detached(made)
    own = int(Path("/proc/self/oom_score_adj").read_text())
    process = made.config["process"] | {"args": ["cat", "/proc/self/oom_score_adj"], "oomScoreAdj": own + 5}
    path = bundle().path / "process.json"
    path.write_text(__import__("json").dumps(process))
    path.chmod(0o644)
    path.parent.chmod(0o755)
    assert rootless.call("exec", "--process", path, container).ok().out == f"{own + 5}\n"


def test_root_of_a_user_namespace(runtime: Runtime, clone: Path, bundle: MakeBundle, no_leaks: list[Path]) -> None:
    """As rootless podman calls the runtime: root inside, with every right there and none outside."""
    place = Path(tempfile.mkdtemp(prefix="ocirt-test-user-"))
    no_leaks.append(place)
    os.chown(place, USER, USER)
    prefix = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--", "unshare", "--user", "--map-root-user"]
    inner = Runtime([*prefix, "--mount", str(clone / "build" / "ocirt")], place, runtime.token + "n", None)
    inner.env = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(place)}
    made = owned(bundle(), [{"containerID": 0, "hostID": 0, "size": 1}])
    seen = inner.probe(made)
    assert (seen["uid"], seen["uid_map"].split()[1:]) == ([0] * 3, [str(USER), "1"]) or seen["uid_map"].split()[0] == "0"
    # Without a namespace of its own, the container's root is that of the namespace which the runtime is in.
    made.edit(namespaces=["pid", "ipc", "uts", "mount"], uidMappings=None, gidMappings=None)
    assert inner.shell(made, "id -u; echo x > /dev/null").ok().out == "0\n"
