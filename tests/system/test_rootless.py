"""Containers of a user who is not root: alone, with subordinate ids, and nested in a user namespace."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocirt.spec.capabilities import NAMES
from tests.support.bundle import Bundle, cgroup_mount
from tests.support.isolation import Isolation, cgroup_mounts, mount, umount
from tests.support.runtime import Runtime
from tests.support.terminal import Terminal
from tests.system.conftest import MakeBundle
from tests.system.test_cgroups import available
from tests.system.test_namespaces import with_user_namespace

USER = 65534
MS_BIND = 0x1000
ONE = [{"containerID": 0, "hostID": USER, "size": 1}]
SUBORDINATE = [{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": 200_000, "size": 65_536}]

pytestmark = pytest.mark.ocirt_only("peers differ in what a user may do; these are ocirt's own promises")


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


def test_a_cgroup_mount(rootless: Runtime, bundle: MakeBundle) -> None:
    """What may not make cgroups shows those that it is in, all of them, read-only: podman puts mounts of its own among them."""
    made = owned(bundle(add_mounts=[{**cgroup_mount(), "options": ["nosuid", "noexec", "nodev"]}]), ONE)
    script = "cd /sys/fs/cgroup; for name in . *; do test -e $name/cgroup.procs && mkdir $name/x 2>&1; done; true"
    lines = rootless.shell(made, script).ok().out.splitlines()
    shown = {Path(line.split("'")[2]).parent for line in lines}
    assert {path.relative_to("/sys/fs/cgroup") for path in cgroup_mounts() if path.is_relative_to("/sys/fs/cgroup")} <= shown
    assert all(line.endswith("Read-only file system") for line in lines)


# With a pid namespace at the path $LINK, for as long as the runtime lasts.
_BESIDE_A_PID_NAMESPACE = """
unshare --pid --fork --kill-child sleep 1000 </dev/null >/dev/null 2>&1 &
own=$(readlink /proc/self/ns/pid)
until other=$(readlink /proc/$!/ns/pid_for_children) && test "$other" != "$own"; do sleep 0.01; done
ln -s /proc/$!/ns/pid_for_children "$LINK"
"$0" "$@"; code=$?
kill -KILL $!; wait $!
exit $code
"""


@pytest.fixture
def nested(runtime: Runtime, clone: Path, no_leaks: list[Path]) -> Runtime:
    """The runtime as rootless podman calls it: by root of a user namespace, with every right there and none outside."""
    place = Path(tempfile.mkdtemp(prefix="ocirt-test-user-"))
    no_leaks.append(place)
    os.chown(place, USER, USER)
    prefix = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--", "unshare", "--user", "--map-root-user"]
    inner = Runtime([*prefix, "--mount", str(clone / "build" / "ocirt")], place, runtime.token + "n", None)
    inner.env = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(place)}
    return inner


def test_root_of_a_user_namespace(nested: Runtime, bundle: MakeBundle) -> None:
    """With a user namespace of the container's own, and without."""
    made = owned(bundle(), [{"containerID": 0, "hostID": 0, "size": 1}])
    seen = nested.probe(made)
    assert (seen["uid"], seen["uid_map"].split()[1:]) == ([0] * 3, [str(USER), "1"]) or seen["uid_map"].split()[0] == "0"
    # Without a namespace of its own, the container's root is that of the namespace which the runtime is in.
    made.edit(namespaces=["pid", "ipc", "uts", "mount"], uidMappings=None, gidMappings=None)
    assert nested.shell(made, "id -u; echo x > /dev/null").ok().out == "0\n"


def test_no_way_back_for_root_of_a_user_namespace(nested: Runtime, bundle: MakeBundle) -> None:
    """The network and pid namespace that the runtime is in are the host's: it may not come back once it has left them."""
    made = owned(bundle(), ONE).edit(uidMappings=None, gidMappings=None)
    made.edit(namespaces=["network", "pid", "ipc", "uts", "mount"])
    nested.shell(made, "grep -q 127.0.0.1 /proc/net/fib_trie").ok()  # the kernel gives lo its address when it comes up
    link = nested.work / "pid"
    made.edit(namespaces=[{"type": "pid", "path": str(link)}, "network", "ipc", "uts", "mount"])
    nested.command[-1:] = ["sh", "-c", _BESIDE_A_PID_NAMESPACE, nested.command[-1]]
    assert nested.env is not None
    nested.env["LINK"] = str(link)
    assert int(nested.shell(made, "echo $$").ok().out) > 1  # sleep is the first there


def test_without_newuidmap(rootless: Runtime, bundle: MakeBundle) -> None:
    """More ids than one's own where the programs that map them are not installed: said with the package to install."""
    made = owned(bundle(), SUBORDINATE)
    rootless.command[0] = shutil.which("setpriv") or "setpriv"
    rootless.env = {**(rootless.env or {}), "PATH": "/nowhere"}
    rootless.run(made).failed(r"/linux/uidMappings.*newuidmap.*uidmap", rc=1)


@pytest.fixture
def delegated(isolation: Isolation) -> Iterator[Path]:
    """A cgroup in each hierarchy that is the user's, as systemd delegates one; its path in the hierarchies."""
    inner = f"{isolation.cgroup_parent}/user"
    made = [mount / inner[1:] for mount in cgroup_mounts()]
    for place in made:
        place.mkdir()
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (place / "cpuset.cpu_exclusive").exists():
                (place / name).write_text((place.parent / name).read_text())
        if (place / "cgroup.subtree_control").exists():
            controllers = (place.parent / "cgroup.controllers").read_text().split()
            (place.parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))
        for name in ("", "cgroup.procs", "tasks", "cgroup.subtree_control", "cgroup.threads"):
            if (place / name).exists():
                os.chown(place / name, USER, USER)
        (place / "own").mkdir()
        for path in (place / "own", *(place / "own").iterdir()):
            os.chown(path, USER, USER)
    yield Path(inner)
    for place in made:
        (place / "own").rmdir()
        place.rmdir()


@pytest.mark.parametrize("controller", ["pids", "memory", "hugetlb"])
def test_a_delegated_cgroup(rootless: Runtime, bundle: MakeBundle, delegated: Path, controller: str) -> None:
    """Limits work for a user who has been given a cgroup; the runtime itself lies in it, as the kernel wants it of version 2."""
    if not available(controller):
        pytest.skip(f"no {controller} controller in this view")
    if controller == "hugetlb" and len(cgroup_mounts()) > 1:
        pytest.skip("beside version 1 only its controllers are used, as by runc")
    section = {
        "pids": {"limit": 47},
        "memory": {"limit": 50 << 20},
        "hugetlb": [{"pageSize": "2MB", "limit": 4 << 20}],
    }[controller]
    made = owned(bundle(args=["sleep", "1000"]), ONE)
    name = "hugepageLimits" if controller == "hugetlb" else controller
    made.edit(resources={name: section}, cgroupsPath=f"{delegated}/box")
    unified = [place for place in cgroup_mounts() if (place / "cgroup.controllers").exists()]
    entered = "; ".join(f'echo $$ > "{place}{delegated}/own/cgroup.procs"' for place in unified)
    rootless.command = ["sh", "-c", f'{entered}; exec "$0" "$@"', *rootless.command]
    container = rootless.run_detached(made)
    places = [Path(f"{place}{delegated}/box") for place in cgroup_mounts()]
    assert all(place.is_dir() for place in places)
    files = {"pids": ("pids.max", "47"), "memory": ("memory.max|memory.limit_in_bytes", str(50 << 20))}
    names, value = files.get(controller, ("hugetlb.2MB.max|hugetlb.2MB.limit_in_bytes", str(4 << 20)))
    found = [place / name for place in places for name in names.split("|") if (place / name).exists()]
    assert [path.read_text().strip() for path in found] == [value]
    assert str(rootless.pid(container)) in (places[0] / "cgroup.procs").read_text().split()
    rootless.call("pause", container).ok()
    assert rootless.status(container) == "paused"
    rootless.call("resume", container).ok()
    assert rootless.call("ps", "--format", "json", container).ok().json() == [rootless.pid(container)]
    rootless.delete(container, "--force").ok()
    assert not any(place.exists() for place in places)


def own_capabilities() -> list[str]:
    """All that the tests have: the runtime in the container gets them, too."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    held = int(line.split()[1], 16)
    return [name for number, name in enumerate(NAMES) if held >> number & 1]


@pytest.mark.parametrize("user", [False, True], ids=["of the host", "in a user namespace"])
def test_in_another_container(runtime: Runtime, clone: Path, bundle: MakeBundle, user: bool) -> None:  # noqa: FBT001
    """The runtime in a container of its own, with the machine's programs."""
    inner = bundle(args=["sh", "-c", "id -u; cat /proc/self/uid_map; echo of $(hostname)"], hostname="inner")
    inner.edit(rlimits=[], edit=lambda config: config["linux"].pop("resources"))
    inner.write()
    outer = bundle(
        args=[f"{clone}/build/ocirt", "--root", "/run/state", "run", "--bundle", str(inner.path), "nested"],
        hostname="outer",
        env=[f"PATH={os.environ['PATH']}"],
        add_mounts=[
            *(
                {"destination": place, "type": "bind", "source": place, "options": ["rbind", "ro"]}
                for place in ("/usr", "/lib", "/lib64", "/bin", "/etc", str(clone))
            ),
            {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": str(inner.path), "type": "bind", "source": str(inner.path), "options": ["rbind"]},
            {
                "destination": "/sys/fs/cgroup",
                "type": "cgroup",
                "source": "cgroup",
                "options": ["rw", "nosuid", "noexec", "nodev"],
            },
        ],
        capabilities={kind: own_capabilities() for kind in ("bounding", "effective", "permitted")},
        maskedPaths=[],
        readonlyPaths=[],
    )
    if user:
        with_user_namespace(outer)
        with_user_namespace(inner)
        inner.edit(namespaces=["pid", "ipc", "uts", "mount", "network"], uidMappings=None, gidMappings=None)
    said = runtime.run(outer).ok().out.splitlines()
    assert (said[0], said[-1]) == ("0", "of inner")
    assert said[1].split() == (["0", "100000", "65536"] if user else ["0", "0", "4294967295"])
