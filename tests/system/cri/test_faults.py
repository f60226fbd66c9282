"""What a node has to live through: parts that are killed, disks that are full, limits that are reached."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.isolation import cgroup_mounts, mount, mount_targets, umount
from tests.support.ocirtd import PATIENCE, Ocirtd, refused
from tests.support.runtime import wait_for
from tests.system.cri.test_restart import shim_of

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

MiB = 1 << 20
OWN = cri.NamespaceOption(network=cri.POD, ipc=cri.POD, pid=cri.CONTAINER)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def below(pid: int) -> list[int]:
    """A daemon's processes: itself, the zygote and its forks."""
    return [pid, *(found for child in children(pid) for found in below(child))]


@contextmanager
def a_small_disk(node: Ocirtd, name: str, options: str) -> Iterator[Path]:
    """A directory of a daemon (r: root, v: state) on a file system of its own."""
    place = node.place / name
    node.stop()
    kept = node.place / f"{name}.kept"
    place.rename(kept)
    place.mkdir(mode=0o755)
    mount("small", str(place), "tmpfs", 0, options)
    if name == "r":
        subprocess.run(["cp", "-a", f"{kept}/.", place], check=True)
    node.start()
    try:
        yield place
        node.clear()
        assert node.left() == []
    finally:
        node.forget()
        umount(str(place))
        place.rmdir()
        kept.rename(place)


def fill(place: Path) -> list[Path]:
    """Leave no byte; the files."""
    path = place / "fill"
    with path.open("wb", buffering=0) as file:
        for size in (MiB, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    return [path]


def take_inodes(place: Path) -> list[Path]:
    """Leave no inode; the files."""
    found: list[Path] = []
    try:
        while True:
            path = place / f"fill{len(found)}"
            path.touch()
            found.append(path)
    except OSError:
        return found


@pytest.mark.parametrize(("options", "use_up"), [("size=24m", fill), ("size=200m,nr_inodes=600", take_inodes)])
def test_the_disk_is_full(node: Ocirtd, options: str, use_up: object) -> None:
    """What is new is refused in words, and leaves nothing; what runs goes on, and can be stopped and removed."""
    assert callable(use_up)
    with a_small_disk(node, "r", options) as place:
        pod = node.run_pod()
        box, ended = node.run(pod, "sleep", "1000"), node.run(pod, "true")
        node.wait(ended)
        files = use_up(place)
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED) as words:
            node.create(pod, node.container_config("sleep", "1000"))
        assert "full" in words[0] or "no space left" in words[0]
        assert node.exec(box, "true").exit_code == 0
        node.stop_container(box)
        assert node.status(box).exit_code == 137
        node.remove_container(ended)
        node.stop_pod(pod)
        node.remove_pod(pod)
        assert node.pods() == node.containers() == []
        for path in files:
            path.unlink()
        pod = node.run_pod()
        assert node.wait(node.run(pod, "true")).exit_code == 0
        node.kill()
        node.start()
        assert [one.id for one in node.pods()] == [pod]


def test_the_state_is_full(node: Ocirtd) -> None:
    with a_small_disk(node, "v", "size=2m,mode=755") as place:
        pod = node.run_pod()
        box = node.run(pod, "sleep", "1000")
        (path,) = fill(place)
        with pytest.raises(grpc.RpcError, match="(?i)no space left"):
            node.create(pod, node.container_config("sleep", "1000"))
        assert len(node.containers()) == 1
        node.stop_container(box)
        assert node.status(box).exit_code == 137
        path.unlink()
        assert node.wait(node.run(pod, "true")).exit_code == 0


def test_no_more_descriptors(node: Ocirtd) -> None:
    """The daemon goes on, and does what it refused when there are some again."""
    assert node.process is not None
    pod = node.run_pod()
    box = node.run(pod, "sleep", "1000")
    pid = node.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 2, before[1]))
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as caught:
            node.run(pod, "sleep", "1000")
        assert "a bug in ocirtd" not in str(caught.value.details()), caught.value.details()
    assert [one.id for one in node.pods()] == [pod]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert node.exec(box, "true").exit_code == 0
    node.until(lambda: len(node.containers()) == 1, "the end of what was refused")
    assert node.wait(node.run(pod, "true")).exit_code == 0


def test_no_more_processes(node: Ocirtd) -> None:
    """In its own cgroup of pids, if there is one."""
    assert node.process is not None
    found = [Path(path) for path in ("/sys/fs/cgroup/pids", "/sys/fs/cgroup") if Path(path, "cgroup.procs").exists()]
    group = next((path for path in found if (path / "pids.max").exists() or path.name == "pids"), None)
    if group is None or group.name != "pids":
        pytest.skip("no hierarchy of pids of its own")
    mine = group / node.cgroup_parent.lstrip("/") / "daemon"
    mine.mkdir(parents=True)
    try:
        pod = node.run_pod()
        box = node.run(pod, "sleep", "1000")
        for pid in below(node.process.pid):
            if pid not in children(shim_of(node, box)):
                (mine / "cgroup.procs").write_text(str(pid))
        (mine / "pids.max").write_text((mine / "pids.current").read_text())
        with pytest.raises(grpc.RpcError) as caught:
            node.run(pod, "sleep", "1000")
        assert "a bug in ocirtd" not in str(caught.value.details()), caught.value.details()
        assert node.status(box).state == cri.CONTAINER_RUNNING
        (mine / "pids.max").write_text("max")
        assert node.wait(node.run(pod, "true")).exit_code == 0
        assert len(node.containers()) == 2
    finally:
        node.clear()
        wait_for(lambda: (mine / "cgroup.procs").read_text() == "", "the end of the daemon's processes", 10)
        mine.rmdir()


def test_an_image_is_removed_under_a_container(node: Ocirtd) -> None:
    """The container keeps its files, also for the next daemon; a new one of that image is refused."""
    pod = node.run_pod()
    box = node.run(pod, "sleep", "1000")
    (image,) = node.images.ListImages(cri.ListImagesRequest()).images
    node.images.RemoveImage(cri.RemoveImageRequest(image=cri.ImageSpec(image=image.id)), timeout=PATIENCE)
    assert list(node.images.ListImages(cri.ListImagesRequest()).images) == []
    assert node.exec(box, "ls", "/bin/busybox").exit_code == 0
    with refused(grpc.StatusCode.NOT_FOUND):
        node.create(pod, node.container_config("true"))
    node.kill()
    node.start()
    assert node.exec(box, "ls", "/bin/busybox").exit_code == 0
    assert node.status(box).image_id == image.id
    node.remove_pod(pod)
    assert node.left() == []


def test_output_of_an_exec_that_no_answer_could_hold(node: Ocirtd) -> None:
    """The kubelet takes 16 MiB. What is more is dropped, and the program ends as it would."""
    pod = node.run_pod()
    box = node.run(pod, "sleep", "1000")
    done = node.exec(box, "sh", "-c", "head -c 16777216 /dev/zero; head -c 16777216 /dev/zero >&2; exit 3")
    assert done.exit_code == 3
    assert 7 * MiB <= len(done.stdout) == len(done.stderr)
    assert len(done.SerializeToString()) < 16 * MiB
    assert node.exec(box, "true").exit_code == 0
    assert [path for path in (node.place / "v/shims" / box).iterdir() if path.suffix in (".stdout", ".stderr")] == []


def test_output_that_nobody_reads(node: Ocirtd) -> None:
    """A container without a log writes as much as it likes; one with a terminal, too."""
    pod = node.run_pod()
    for tty in (False, True):
        wanted = node.container_config("sh", "-c", "head -c 3000000 /dev/zero; exit 5", tty=tty)
        wanted.log_path = ""
        box = node.create(pod, wanted)
        node.start_container(box)
        assert node.wait(box).exit_code == 5


def test_a_grandchild_keeps_the_output(node: Ocirtd) -> None:
    """The end of the program is told, and the container can be removed, whoever holds its pipes."""
    pod = node.run_pod()
    box = node.run(pod, "sh", "-c", "(setsid sleep 1000 &); echo done")
    assert node.wait(box).exit_code == 0
    assert node.logged(box) == [("stdout", "F", "done")]
    other = node.run(pod, "sleep", "1000")
    assert node.exec(other, "sh", "-c", "(setsid sleep 1000 &); echo done").stdout == b"done\n"
    node.remove_container(box)
    node.remove_container(other)


def test_an_environment_that_is_not_utf_8(node: Ocirtd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what ocirtd was started with nor what a container is to get need be text."""
    node.stop()
    monkeypatch.setitem(os.environb, b"ODD\xff", b"\xfe=\x80")
    node.start()
    pod = node.run_pod()
    wanted = node.container_config("sh", "-c", 'printf %s "$ODD" | busybox od -An -tx1; sleep 1000')
    wanted.envs.append(cri.KeyValue(key="ODD", value=b"\xff\x00\xfe".replace(b"\x00", b"")))
    box = node.create(pod, wanted)
    node.start_container(box)
    node.until(lambda: node.logged(box), "a line")
    assert node.logged(box)[0][2].split() == ["ff", "fe"]
    assert node.exec(box, "sh", "-c", 'printf %s "$ODD"').stdout == b"\xff\xfe"
    node.kill()
    node.start()
    assert node.exec(box, "sh", "-c", 'printf %s "$ODD"').stdout == b"\xff\xfe"


@pytest.mark.parametrize("path", ["../x.log", "a/../../x.log", "/x.log", "..", "a\0b"])
def test_a_log_path_that_leads_out(node: Ocirtd, path: str) -> None:
    pod = node.run_pod()
    wanted = node.container_config("true")
    wanted.log_path = path
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
        node.create(pod, wanted)
    assert "log_path" in words[0]
    assert node.containers() == []


@pytest.mark.parametrize("identifier", ["../../etc", "..", "/", "a/b", "\n", "*", "x" * 5000])
def test_an_id_that_is_none(node: Ocirtd, identifier: str) -> None:
    with refused(grpc.StatusCode.NOT_FOUND):
        node.status(identifier)
    with refused(grpc.StatusCode.NOT_FOUND):
        node.create(identifier, node.container_config("true"))
    node.remove_pod(identifier)
    node.remove_container(identifier)


def test_the_zygote_is_killed_while_a_container_is_made(node: Ocirtd) -> None:
    """Whenever it is: the container is there or refused, and then a retry makes it."""
    assert node.process is not None
    pod = node.run_pod()
    for number in range(8):
        wanted = node.container_config("sleep", "1000")
        under_way = node.runtime.CreateContainer.future(
            cri.CreateContainerRequest(pod_sandbox_id=pod, config=wanted), timeout=PATIENCE
        )
        time.sleep(number / 200)
        for child in children(node.process.pid):
            if b"ocirt_shim.zygote" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(child, signal.SIGKILL)
        with contextlib.suppress(grpc.RpcError):
            under_way.result()
        box = node.create(pod, wanted)
        node.start_container(box)
        assert node.exec(box, "true").exit_code == 0
    assert len(node.containers()) == 8


def test_the_init_of_a_container_is_killed(node: Ocirtd) -> None:
    """By somebody else: it is told as it is."""
    pod = node.run_pod()
    box = node.run(pod, "sleep", "1000")
    (init,) = children(shim_of(node, box))
    os.kill(init, signal.SIGKILL)
    status = node.wait(box)
    assert (status.exit_code, status.reason) == (137, "Error")


def test_the_machine_starts_anew(node: Ocirtd) -> None:
    """The state directory is empty and the boot another, while the root is as it was."""
    pod = node.run_pod()
    box, ended = node.run(pod, "sleep", "1000"), node.run(pod, "sh", "-c", "exit 3")
    node.wait(ended)
    log = Path(node.status(box).log_path)
    node.kill()
    shims = [shim_of(node, one) for one in (box, ended)]
    inits = [child for pid in shims for child in children(pid)]
    for pid in (*shims, *inits):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in inits), "the end of all", 10)
    node.forget()
    shutil.rmtree(node.place / "v")
    another_boot(node)
    drop_groups(box, ended)
    node.start()
    assert node.pod_status(pod).state == cri.SANDBOX_NOTREADY
    status = node.status(box)
    assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, 255, "Unknown")
    assert node.status(ended).exit_code == 3
    assert log.exists()
    config = node.pod_config()
    other = node.run_pod(config)
    assert node.wait(node.run(other, "true")).exit_code == 0
    node.stop_pod(pod)
    node.remove_pod(pod)
    node.remove_pod(other)
    assert node.left() == []


def test_a_power_cut_that_took_the_last_rows(networked: Ocirtd) -> None:
    """Rows reach the disk a moment later than they are written: what they told of is found without them, and taken away."""
    node = networked
    before = node.run_pod(node.pod_config(options=OWN))
    kept = node.place / "before"
    kept.mkdir()
    for file in (node.place / "r").glob("node.db*"):
        shutil.copy(file, kept)
    pod = node.run_pod(node.pod_config(options=OWN))
    box = node.run(pod, "sleep", "1000")
    shim = shim_of(node, box)
    (init,) = children(shim)
    node.kill()
    for pid in (shim, init):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{init}/exe").exists(), "the end of all", 10)
    node.forget()
    for target in reversed(mount_targets()):
        if target.is_relative_to(node.place / "v"):
            umount(str(target))
    shutil.rmtree(node.place / "v")
    for file in kept.iterdir():
        shutil.copy(file, node.place / "r")
    shutil.rmtree(kept)
    another_boot(node)
    drop_groups(box)
    node.start()
    assert [one.id for one in node.pods()] == [before]
    node.remove_pod(before)
    assert node.left() == []
    assert [one for one in (node.place / "r/cni").glob("results/*") if one.is_file()] == []
    other = node.run_pod(node.pod_config(options=OWN))
    assert node.wait(node.run(other, "true")).exit_code == 0
    node.remove_pod(other)


def drop_groups(*containers: str) -> None:
    """Remove the cgroups of containers, as a reboot does. Those of others come and go meanwhile."""
    for root in cgroup_mounts():
        for place, names, _ in os.walk(root, topdown=False):
            for name in names:
                if any(one in name for one in containers):
                    Path(place, name).rmdir()


def another_boot(node: Ocirtd) -> None:
    """What rows say of the boot is of another one."""
    db = sqlite3.connect(node.place / "r/node.db")
    with db:
        for table in ("pods", "containers"):
            db.execute(f"UPDATE {table} SET more = json_set(more, '$.boot_id', 'another')")
    db.close()
