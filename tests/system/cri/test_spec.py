"""Documents made from CRI requests, run for real by ocirt's library: what the container then is."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ocirt
from ocirt.spec.capabilities import mask
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri import machine
from ocirt_cri.lookups import HostLookups
from ocirt_cri.spec.build import Built, build
from ocirt_cri.spec.document import encode
from ocirt_cri.spec.inputs import CAPABILITIES, Container, Host, ImageVolume, Pod, Settings
from ocirt_cri.spec.pod import pod_of
from ocirt_images.config import ImageConfig
from ocirt_images.platforms import Platform
from tests.support.build import ROOT
from tests.support.bundle import make_rootfs
from tests.support.isolation import MS_PRIVATE, MS_SHARED, Isolation, mount, umount
from tests.support.runtime import Runtime

pytestmark = pytest.mark.ocirt_only("the library is ocirt's own")

UNCONFINED, DEFAULT, LOCALHOST = (
    cri.SecurityProfile.Unconfined,
    cri.SecurityProfile.RuntimeDefault,
    cri.SecurityProfile.Localhost,
)
OWN_PID = cri.NamespaceOption(pid=cri.CONTAINER)
IDS = 100_000


class Node:
    """A pod that is there, by a process that holds its namespaces, and containers of it, one after the other."""

    def __init__(self, runtime: Runtime, isolation: Isolation, place: Path, holder: int) -> None:
        self.runtime = runtime
        self.place = place
        self.rootfs = place / "image"
        self.holder = holder
        self.host: Host = machine.look()
        self.settings = Settings(cgroup_parent=isolation.cgroup_parent)
        self.image: dict[str, Any] = {}
        self.cdi = place / "cdi"
        self.volumes: dict[int, ImageVolume] = {}
        self.targets: dict[str, str] = {}  # other containers' pid namespaces
        self.pid = ""  # the path of the pod's pid namespace
        for name, text in (("hosts", "10.0.0.7 web\n"), ("resolv.conf", "nameserver 10.0.0.1\n"), ("hostname", "web\n")):
            (place / name).write_text(text)
        (place / "shm").mkdir(mode=0o1777)

    def pod(self, *, privileged: bool, modes: cri.NamespaceOption) -> Pod:
        config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name="web", uid="u", namespace="default"),
            hostname="web",
            linux=cri.LinuxPodSandboxConfig(
                security_context=cri.LinuxSandboxSecurityContext(privileged=privileged, namespace_options=modes)
            ),
        )
        wants = pod_of(config, "", self.host, self.settings)
        spaces = f"/proc/{self.holder}/ns/"
        return Pod(
            id="a" * 64,
            config=config,
            network=spaces + "net" if wants.network else "",
            ipc=spaces + "ipc" if wants.ipc else "",
            uts=spaces + "uts" if wants.uts else "",
            user=spaces + "user" if wants.ids else "",
            hosts=str(self.place / "hosts"),
            resolv_conf=str(self.place / "resolv.conf"),
            hostname_file=str(self.place / "hostname"),
            pid=self.pid if wants.pid else "",
            shm=str(self.place / "shm"),
            hostname=wants.hostname,
        )

    def built(self, script: str, **changes: Any) -> Built:
        """What comes of a request to run a line of shell; the keywords are of its security context, or of itself."""
        fields = cri.LinuxContainerSecurityContext.DESCRIPTOR.fields_by_name
        security = {name: changes.pop(name) for name in list(changes) if name in fields}
        modes = changes.pop("of", security.setdefault("namespace_options", OWN_PID))
        linux = cri.LinuxContainerConfig(
            security_context=cri.LinuxContainerSecurityContext(**security), resources=changes.pop("resources", None)
        )
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name="app"),
            image=cri.ImageSpec(image="busybox"),
            command=["sh", "-c", script],
            linux=linux,
            **changes,
        )
        name = self.runtime.new_id()
        values: dict[str, Any] = {"platform": Platform("linux", "amd64"), "diff_ids": (), "labels": {}, "raw": {}}
        container = Container(
            id=name,
            config=config,
            image=ImageConfig(**values | self.image),
            image_name="busybox",
            directory=str(self.place / "containers"),
            volumes=self.volumes,
        )
        pod = self.pod(privileged=security.get("privileged", False), modes=modes)
        with HostLookups([self.rootfs], lambda name: self.targets.get(name, ""), cdi=(str(self.cdi),)) as lookups:
            found = build(pod, container, self.host, self.settings, lookups)
        found.document["root"]["path"] = str(self.rootfs)
        for one in found.directories:
            os.makedirs(one.path, one.mode, exist_ok=True)
            os.chown(one.path, one.uid, one.gid)
        return found

    def run(self, script: str, **changes: Any) -> ocirt.CompletedProcess:
        """Run it to its end. Raises Error."""
        found = self.built(script, **changes)
        name = found.document["linux"]["cgroupsPath"].rpartition("/")[2]
        return ocirt.run(config=found.document, id=name, root=self.runtime.root, capture_output=True, text=True)

    def says(self, script: str, **changes: Any) -> str:
        """What it writes; it has to succeed."""
        done = self.run(script, **changes)
        assert done.returncode == 0, (done.stdout, done.stderr)
        said: str = done.stdout
        return said

    def fails(self, script: str, **changes: Any) -> str:
        """What it complains of; it must not succeed."""
        done = self.run(script, **changes)
        assert done.returncode != 0, done.stdout
        complaint: str = done.stderr
        return complaint


@contextlib.contextmanager
def holding(*kinds: str) -> Iterator[int]:
    """The pid of a process with namespaces of its own; a user namespace is mapped."""
    with subprocess.Popen(["unshare", *kinds, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        process.stdout.read(1)  # unshare has become cat
        if "--user" in kinds:
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{process.pid}/{name}").write_text(f"0 {IDS} 65536\n")
        yield process.pid
        process.stdin.close()


def node_with(runtime: Runtime, isolation: Isolation, no_leaks: list[Path], holder: int) -> Node:
    place = Path(tempfile.mkdtemp(prefix="ocirt-test-"))
    no_leaks.append(place)
    place.chmod(0o755)
    made = Node(runtime, isolation, place, holder)
    make_rootfs(made.rootfs)
    return made


@pytest.fixture
def node(runtime: Runtime, isolation: Isolation, no_leaks: list[Path]) -> Iterator[Node]:
    ocirt.close()
    with holding("--net", "--ipc", "--uts") as holder:
        yield node_with(runtime, isolation, no_leaks, holder)
    ocirt.close()


def number(value: int) -> cri.Int64Value:
    return cri.Int64Value(value=value)


def status(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


# -- users and capabilities ----------------------------------------------------------------------------------------------------


def test_user(node: Node) -> None:
    """The image's files say which groups."""
    said = node.says("id -u; id -g; id -G; echo $HOME", run_as_user=number(1000), supplemental_groups=[1234])
    uid, gid, groups, home = said.splitlines()
    assert (uid, gid, home) == ("1000", "1000", "/home")
    assert sorted(map(int, groups.split())) == [29, 1000, 1234]
    strict = node.says("id -G", run_as_user=number(1000), supplemental_groups_policy=cri.Strict)
    assert strict.split() == ["1000"]
    assert node.says("id -un; id -g", run_as_username="alice", run_as_group=number(1002)).split() == ["alice", "1002"]
    node.image = {"user": "alice"}
    assert node.says("id -u").strip() == "1000"


@pytest.mark.parametrize(
    ("asked", "had"),
    [
        ({}, set(CAPABILITIES)),
        ({"drop_capabilities": ["ALL"]}, set()),
        ({"drop_capabilities": ["ALL"], "add_capabilities": ["CHOWN"]}, {"CAP_CHOWN"}),
        ({"add_capabilities": ["NET_ADMIN"], "drop_capabilities": ["MKNOD"]}, {*CAPABILITIES, "CAP_NET_ADMIN"} - {"CAP_MKNOD"}),
    ],
)
def test_capabilities(node: Node, asked: dict[str, list[str]], had: set[str]) -> None:
    found = status(node.says("cat /proc/self/status", capabilities=cri.Capability(**asked)))
    for name in ("CapBnd", "CapEff", "CapPrm"):
        assert int(found[name], 16) == mask(had & set(node.host.capabilities)), name
    assert int(found["CapAmb"], 16) == int(found["CapInh"], 16) == 0


def test_all_capabilities(node: Node) -> None:
    found = status(node.says("cat /proc/self/status", capabilities=cri.Capability(add_capabilities=["ALL"])))
    assert int(found["CapEff"], 16) == mask(node.host.capabilities)


def test_ambient_capabilities(node: Node) -> None:
    """A user who is not root keeps them over execve(2), and loses all others."""
    given = cri.Capability(add_ambient_capabilities=["NET_BIND_SERVICE"])
    found = status(node.says("cat /proc/self/status", capabilities=given, run_as_user=number(1000)))
    assert int(found["CapEff"], 16) == mask(["CAP_NET_BIND_SERVICE"])
    assert int(status(node.says("cat /proc/self/status", run_as_user=number(1000)))["CapEff"], 16) == 0


@pytest.mark.parametrize("wanted", [False, True])
def test_no_new_privileges(node: Node, wanted: bool) -> None:
    assert status(node.says("cat /proc/self/status", no_new_privs=wanted))["NoNewPrivs"] == str(int(wanted))


# How a shim does it: config.json as bytes, and a container in the process that read it.
_RUN = """
import os, sys
sys.path.insert(0, sys.argv[1])
from ocirt import jsonlite
from ocirt.containers.create import Creation
from ocirt.plan import Request

document = jsonlite.loads(sys.stdin.buffer.read(), any_bytes=True)
request = Request(sys.argv[2], "/", "", waits=False)
creation = Creation(sys.argv[3], request, document=document)
creation.prepare()
pid = creation.make()["pid"]
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize("value", [b"caf\xe9", b"\xff\xfe", b"\xed\xa0\x80", b"\xc3\xa9"])
def test_bytes_that_are_not_text(node: Node, value: bytes) -> None:
    """A variable comes to the program as the client sent it."""
    found = node.built('printf %s "$X"', envs=[cri.KeyValue(key="X", value=value)])
    name = found.document["linux"]["cgroupsPath"].rpartition("/")[2]
    command = [sys.executable, "-I", "-c", _RUN, str(ROOT), name, str(node.runtime.root)]
    done = subprocess.run(command, input=encode(found.document), capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, value), done.stderr
    node.runtime.call("delete", "--force", name).ok()


# -- profiles ------------------------------------------------------------------------------------------------------------------


def profile(kind: cri.SecurityProfile.ProfileType.ValueType, path: str = "") -> cri.SecurityProfile:
    return cri.SecurityProfile(profile_type=kind, localhost_ref=path)


@pytest.mark.parametrize(("kind", "mode"), [(None, "0"), (UNCONFINED, "0"), (DEFAULT, "2")])
def test_filter(node: Node, kind: cri.SecurityProfile.ProfileType.ValueType | None, mode: str) -> None:
    given = {} if kind is None else {"seccomp": profile(kind)}
    assert status(node.says("cat /proc/self/status", **given))["Seccomp"] == mode


def test_default_filter(node: Node) -> None:
    """Ordinary work goes on; what administers the machine needs the capability as well."""
    given = {"seccomp": profile(DEFAULT)}
    assert node.says("mkdir /tmp/x && touch /tmp/x/y && chmod 600 /tmp/x/y && ls /tmp/x && sleep 0.01", **given).strip() == "y"
    assert node.says("busybox unshare -U true && echo made").strip() == "made"
    assert "Operation not permitted" in node.fails("busybox unshare -U true", **given)
    admin = cri.Capability(add_capabilities=["SYS_ADMIN"])
    assert node.says("mount -t tmpfs none /mnt && grep -c ' /mnt ' /proc/self/mounts", capabilities=admin, **given).strip() == "1"


def test_filter_of_the_node(node: Node) -> None:
    path = node.place / "profile.json"
    rule = {"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    given = {"seccomp": profile(LOCALHOST, str(path))}
    assert "Operation not permitted" in node.fails("chmod 400 /tmp", **given)
    assert node.says("chmod 755 /tmp && echo done", seccomp=profile(LOCALHOST, str(path)), privileged=True).strip() == "done"


# -- the tree ------------------------------------------------------------------------------------------------------------------


def test_masked_and_read_only_paths(node: Node) -> None:
    given = {"masked_paths": ["/etc/passwd", "/proc/kcore", "/not/there"], "readonly_paths": ["/tmp", "/proc/sys"]}
    assert node.says("cat /etc/passwd /proc/kcore | wc -c; id -u", **given).split() == ["0", "0"]
    assert "Read-only file system" in node.fails("touch /tmp/test", **given)
    assert "Read-only file system" in node.fails("echo 1 >/proc/sys/kernel/panic", **given)


def test_read_only_root(node: Node) -> None:
    assert "Read-only file system" in node.fails("touch /test", readonly_rootfs=True)
    assert "Read-only file system" in node.fails("echo x >/etc/hosts", readonly_rootfs=True)
    assert node.says("touch /test /dev/shm/x && ls /test").strip() == "/test"


def test_files_of_the_pod(node: Node) -> None:
    said = node.says(
        "cat /etc/hosts /etc/resolv.conf /etc/hostname; echo $HOSTNAME; echo data >/dev/shm/x; pwd", working_dir="/made/here"
    )
    assert said.splitlines() == ["10.0.0.7 web", "nameserver 10.0.0.1", "web", "web", "/made/here"]
    assert (node.place / "shm/x").read_text() == "data\n"
    own = node.place / "kubelet-hosts"
    own.write_text("10.9.9.9 kubelet\n")
    given = [cri.Mount(container_path="/etc/hosts", host_path=str(own))]
    assert node.says("cat /etc/hosts", mounts=given) == "10.9.9.9 kubelet\n"


def test_namespaces(node: Node) -> None:
    """Those of the pod, the container's own, and with the node's modes the node's."""
    names = ("net", "ipc", "uts", "pid", "cgroup", "mnt", "user")
    script = "for name in " + " ".join(names) + "; do readlink /proc/self/ns/$name; done"
    found = dict(zip(names, node.says(script).split(), strict=True))
    for name in ("net", "ipc", "uts"):
        assert found[name] == os.readlink(f"/proc/{node.holder}/ns/{name}")
    for name in ("pid", "cgroup", "mnt"):
        assert found[name] != os.readlink(f"/proc/self/ns/{name}")
    nodes = cri.NamespaceOption(network=cri.NODE, pid=cri.NODE, ipc=cri.NODE)
    shared = dict(zip(names, node.says(script, namespace_options=nodes).split(), strict=True))
    for name in ("net", "ipc", "uts", "pid", "user"):
        assert shared[name] == os.readlink(f"/proc/self/ns/{name}"), name


def test_shared_pid_namespace(node: Node) -> None:
    """The pod's, or that of another container: its processes are in sight, and it goes on."""
    with holding("--pid", "--fork") as holder:
        path = f"/proc/{holder}/ns/pid_for_children"
        node.pid = path
        script = "readlink /proc/self/ns/pid; cat /proc/1/cmdline"
        assert node.says(script, namespace_options=cri.NamespaceOption()).splitlines() == [os.readlink(path), "cat\0"]
        node.targets["b"] = path
        modes = cri.NamespaceOption(pid=cri.TARGET, target_id="b")
        of = cri.NamespaceOption(pid=cri.CONTAINER)
        assert node.says(script, namespace_options=modes, of=of).splitlines() == [os.readlink(path), "cat\0"]


@pytest.fixture
def tree(node: Node) -> Iterator[Path]:
    """A directory of the host with a mount in it."""
    place = node.place / "tree"
    (place / "below").mkdir(parents=True)
    mount("tmpfs", str(place), "tmpfs", 0)
    mount("none", str(place), "none", MS_PRIVATE)
    (place / "below").mkdir()
    mount("tmpfs", str(place / "below"), "tmpfs", 0)
    yield place
    umount(str(place / "below"))
    umount(str(place))


def test_read_only_mounts(node: Node, tree: Path) -> None:
    """What is mounted below can be written to, unless all is to be read only."""
    plain = [cri.Mount(container_path="/mnt", host_path=str(tree), readonly=True)]
    assert "Read-only file system" in node.fails("touch /mnt/x", mounts=plain)
    node.says("touch /mnt/below/x", mounts=plain)
    deep = [cri.Mount(container_path="/mnt", host_path=str(tree), readonly=True, recursive_read_only=True)]
    assert "Read-only file system" in node.fails("touch /mnt/below/y", mounts=deep)
    assert node.says("ls /mnt/below", mounts=deep).strip() == "x"


def test_mount_options(node: Node, tree: Path) -> None:
    (tree / "program").write_text("#!/bin/sh\necho ran\n")
    (tree / "program").chmod(0o755)
    given = [cri.Mount(container_path="/mnt", host_path=str(tree))]
    assert node.says("/mnt/program", mounts=given).strip() == "ran"
    given[0].mount_options.append("noexec")
    assert "Permission denied" in node.fails("/mnt/program", mounts=given)


def test_propagation(node: Node, tree: Path) -> None:
    """What a privileged container mounts comes to the host, if that is asked for."""
    mount("none", str(tree), "none", MS_SHARED)
    both = [cri.Mount(container_path="/mnt", host_path=str(tree), propagation=cri.PROPAGATION_BIDIRECTIONAL)]
    node.says("mkdir -p /mnt/new && mount -t tmpfs none /mnt/new && touch /mnt/new/file", mounts=both, privileged=True)
    try:
        assert os.listdir(tree / "new") == ["file"]
    finally:
        umount(str(tree / "new"))
    slave = [cri.Mount(container_path="/mnt", host_path=str(tree), propagation=cri.PROPAGATION_HOST_TO_CONTAINER)]
    node.says("mount -t tmpfs none /mnt/new && touch /mnt/new/other", mounts=slave, privileged=True)
    assert os.listdir(tree / "new") == []


def test_what_is_missing_on_the_host(node: Node) -> None:
    given = [cri.Mount(container_path="/mnt", host_path=str(node.place / "a/b"))]
    assert node.says("touch /mnt/x; ls /mnt", mounts=given).strip() == "x"
    assert (node.place / "a/b/x").exists()


def test_volumes_of_the_image(node: Node) -> None:
    (node.rootfs / "data").mkdir()
    (node.rootfs / "data/kept").write_text("kept")
    node.image = {"volumes": ("/data", "/new")}
    script = "echo x >/data/file && echo y >/new/file && cat /data/kept"
    assert node.says(script) == "kept"
    assert (node.rootfs / "data/file").exists()
    (node.rootfs / "data/file").unlink()
    assert node.says(script, readonly_rootfs=True) == "kept"
    assert not (node.rootfs / "data/file").exists()


@pytest.mark.parametrize("layers", [1, 2])
def test_images_as_volumes(node: Node, layers: int) -> None:
    for layer in range(layers):
        place = node.place / f"layer{layer}"
        place.mkdir()
        (place / "who").write_text(f"layer {layer}")
        (place / f"only{layer}").touch()
    paths = tuple(str(node.place / f"layer{layer}") for layer in range(layers))
    node.volumes = {0: ImageVolume(paths=paths, image_ref="sha256:1")}
    given = [cri.Mount(container_path="/vol", readonly=True, image=cri.ImageSpec(image="x"))]
    said = node.says("cat /vol/who; echo; ls /vol; touch /vol/x 2>&1 | grep -o 'Read-only file system'", mounts=given)
    assert said.splitlines() == ["layer 0", *[f"only{layer}" for layer in range(layers)], "who", "Read-only file system"]


# -- devices, limits -----------------------------------------------------------------------------------------------------------


def test_devices(node: Node) -> None:
    given = [cri.Device(host_path="/dev/zero", container_path="/dev/nothing", permissions="r")]
    said = node.says("head -c 3 /dev/nothing | wc -c; stat -c %F /dev/nothing", devices=given).splitlines()
    assert said == ["3", "character special file"]


def test_devices_by_name(node: Node) -> None:
    node.cdi.mkdir()
    edits = {
        "env": ["GPU=0"],
        "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/zero"}],
        "mounts": [{"hostPath": str(node.place / "hosts"), "containerPath": "/lib/driver", "options": ["ro"]}],
        "hooks": [{"hookName": "createContainer", "path": "/bin/touch", "args": ["touch", str(node.place / "hooked")]}],
    }
    document = {"cdiVersion": "0.6.0", "kind": "vendor.com/gpu", "devices": [{"name": "0", "containerEdits": edits}]}
    (node.cdi / "gpu.json").write_text(json.dumps(document))
    said = node.says(
        "echo $GPU; cat /lib/driver; head -c 2 /dev/gpu0 | wc -c", CDI_devices=[cri.CDIDevice(name="vendor.com/gpu=0")]
    )
    assert said.splitlines() == ["0", "10.0.0.7 web", "2"]
    assert (node.place / "hooked").exists()


def test_privileged(node: Node) -> None:
    """The host's devices, all capabilities, and nothing that is masked or read only."""
    script = "cat /proc/self/status; ls /dev; touch /sys/fs/cgroup 2>/dev/null; grep ' /sys ' /proc/self/mounts"
    said = node.says(script, privileged=True, masked_paths=["/proc/kcore"])
    assert int(status(said)["CapEff"], 16) == mask(node.host.capabilities)
    assert "kmsg" in said.split()
    assert " rw," in said.splitlines()[-1]


def test_limits_of_the_process(node: Node) -> None:
    said = node.says(
        "cat /proc/self/limits; cat /proc/self/oom_score_adj", resources=cri.LinuxContainerResources(oom_score_adj=500)
    )
    (files,) = [line for line in said.splitlines() if line.startswith("Max open files")]
    assert files.split()[3] == "1024"
    assert said.splitlines()[-1] == "500"


def test_limit_of_memory(node: Node) -> None:
    """By default a container's memory does not go to swap either."""
    if "memory" not in node.host.controllers:
        pytest.skip("there is no memory controller")
    found = node.built("true", resources=cri.LinuxContainerResources(memory_limit_in_bytes=32 << 20, cpu_shares=512))
    assert found.document["linux"]["resources"]["memory"]["limit"] == 32 << 20
    place = "/sys/fs/cgroup/memory.max" if node.host.cgroup_version == 2 else "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    said = node.says(f"cat {place}", resources=cri.LinuxContainerResources(memory_limit_in_bytes=32 << 20, cpu_shares=512))
    assert said.strip() == str(32 << 20)


# -- user namespaces -----------------------------------------------------------------------------------------------------------


def test_user_namespace(runtime: Runtime, isolation: Isolation, no_leaks: list[Path]) -> None:
    """Root of the container is a user of the host like any other; a volume with mapped ids is its own all the same."""
    ocirt.close()
    ids = [cri.IDMapping(host_id=IDS, container_id=0, length=65536)]
    modes = cri.NamespaceOption(pid=cri.CONTAINER, userns_options=cri.UserNamespace(mode=cri.POD, uids=ids, gids=ids))
    with holding("--user", "--net", "--ipc", "--uts") as holder:
        node = node_with(runtime, isolation, no_leaks, holder)
        for directory, _, _ in os.walk(node.rootfs):
            os.chown(directory, IDS, IDS)
        volume = node.place / "volume"
        volume.mkdir()
        mounts = [cri.Mount(container_path="/mnt", host_path=str(volume), uidMappings=ids, gidMappings=ids)]
        script = "id -u; head -c 40 /proc/self/uid_map; touch /mnt/x /tmp/y; stat -c %u /mnt/x; head -c 1 /dev/nothing | wc -c"
        device = [cri.Device(host_path="/dev/zero", container_path="/dev/nothing")]
        said = node.says(script, namespace_options=modes, mounts=mounts, devices=device).split()
        assert said == ["0", "0", str(IDS), "65536", "0", "1"]
        assert (volume / "x").stat().st_uid == 0
        assert (node.rootfs / "tmp/y").stat().st_uid == IDS
        script = "cat /proc/self/status; test -c /dev/kmsg; mount -t tmpfs none /mnt; grep ' /sys ' /proc/self/mounts"
        all_of_it = node.says(script, namespace_options=modes, privileged=True)
        assert int(status(all_of_it)["CapEff"], 16) == mask(node.host.capabilities)
        assert " rw," in all_of_it.splitlines()[-1]
    ocirt.close()


def test_a_host_that_has_less(node: Node) -> None:
    """What cannot be had is refused by name, and nothing is made."""
    node.host = replace(node.host, recursive_read_only=False)
    given = [cri.Mount(container_path="/mnt", host_path="/", readonly=True, recursive_read_only=True)]
    with pytest.raises(ocirt.Error, match="^RROUnsupported"):
        node.run("true", mounts=given)
