"""Networks of pods that fail or hang, and what belongs to others on the same host."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.isolation import cgroup_mounts, mount, umount
from tests.support.leaks import mounts
from tests.support.networks import command, make_network
from tests.support.ocirtd import PATIENCE, Ocirtd, refused
from tests.support.runtime import wait_for

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

OWN = cri.NamespaceOption(network=cri.POD, ipc=cri.POD, pid=cri.CONTAINER)
DONE = 'echo \'{"cniVersion": "1.0.0"}\''


def plugin(node: Ocirtd, script: str) -> Path:
    """A network of one plugin, a shell script; where it may write."""
    programs, place = node.place / "bin", node.place / "said"
    for folder in (programs, place, node.place / "net.d"):
        folder.mkdir()
    (programs / "other").write_text(f"#!/bin/sh\nexec 2>/dev/null\ncat >/dev/null\ncd {place}\n{script}\n")
    (programs / "other").chmod(0o755)
    document = {"cniVersion": "1.0.0", "name": "others", "plugins": [{"type": "other"}]}
    (node.place / "net.d/10-others.conflist").write_text(json.dumps(document))
    return place


def configure(node: Ocirtd, **keys: object) -> None:
    """A daemon with these keys of [network]."""
    node.stop()
    more = f'bin_dirs = ["{node.place}/bin"]\n' + "".join(f"{name} = {value}\n" for name, value in keys.items())
    text = node.config.read_text()
    assert "[network]\n" in text
    node.config.write_text(text.replace("[network]\n", "[network]\n" + more))
    node.start()


def helper_of(node: Ocirtd) -> int:
    """The network helper: the fork of the zygote whose children are jobs, and that nobody's shim is."""
    assert node.process is not None
    below = Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children").read_text().split()
    zygotes = [pid for pid in below if b"ocirt_shim.zygote" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    (zygote,) = zygotes
    forks = Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()
    # It alone has a descriptor of the keeper's root, a tmpfs that is mounted nowhere here.
    return next(int(pid) for pid in forks if any(os.readlink(fd) == "/" for fd in Path(f"/proc/{pid}/fd").iterdir()))


def begin(node: Ocirtd, config: cri.PodSandboxConfig, seconds: float = PATIENCE) -> Any:
    return node.runtime.RunPodSandbox.future(cri.RunPodSandboxRequest(config=config), timeout=seconds)


def test_a_retry_joins_what_hangs(networked: Ocirtd) -> None:
    """The client's time is over, and the plugin is not done: who asks again waits for the same."""
    node = networked
    place = plugin(node, f'echo "$CNI_COMMAND" >>log; while ! test -e go; do sleep 0.05; done; {DONE}')
    configure(node)
    config = node.pod_config(options=OWN)
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        begin(node, config, 0.5).result()
    assert node.pods() == []
    again = begin(node, config)
    time.sleep(0.2)
    (place / "go").touch()
    pod = again.result().pod_sandbox_id
    assert node.run_pod(config) == pod
    assert [one.id for one in node.pods()] == [pod]
    assert (place / "log").read_text().split() == ["ADD"]
    node.remove_pod(pod)
    assert (place / "log").read_text().split() == ["ADD", "DEL"]


def test_what_hangs_for_too_long_is_given_up(networked: Ocirtd) -> None:
    """After network.timeout, with its processes; a retry begins anew."""
    node = networked
    place = plugin(node, f'echo "$CNI_COMMAND $$" >>log; test $CNI_COMMAND = DEL -o -e go || sleep 1000; {DONE}')
    configure(node, timeout=1)
    config = node.pod_config(options=OWN)
    with refused(grpc.StatusCode.UNAVAILABLE) as words:
        node.run_pod(config)
    assert "network.timeout" in words[0]
    assert node.pods() == node.left() == []
    said = [line.split() for line in (place / "log").read_text().splitlines()]
    assert [word for word, _ in said] == ["ADD", "DEL"]
    wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for _, pid in said), "the end of the plugins", 10)
    (place / "go").touch()
    pod = node.run_pod(config)
    node.remove_pod(pod)


def test_a_plugin_that_is_killed(networked: Ocirtd) -> None:
    node = networked
    place = plugin(node, f'echo "$CNI_COMMAND" >>log; test -e once || {{ touch once; kill -9 $$; }}; {DONE}')
    configure(node)
    config = node.pod_config(options=OWN)
    with refused(grpc.StatusCode.UNKNOWN) as words:
        node.run_pod(config)
    assert "killed by signal 9" in words[0]
    assert node.pods() == node.left() == []
    pod = node.run_pod(config)
    node.remove_pod(pod)
    # The runner undoes what failed, and the daemon asks once more for what nobody remembers.
    assert (place / "log").read_text().split()[0] == "ADD"
    assert (place / "log").read_text().split()[-2:] == ["ADD", "DEL"]


def test_the_network_helper_is_killed(networked: Ocirtd) -> None:
    """While a pod is made: that is refused, its retry succeeds, and pods that are there stay."""
    node = networked
    place = plugin(node, f"touch begun; while ! test -e go; do sleep 0.05; done; {DONE}")
    configure(node)
    config = node.pod_config(options=OWN)
    call = begin(node, config)
    wait_for((place / "begun").exists, "the plugin", 10)
    os.kill(helper_of(node), signal.SIGKILL)
    (place / "go").touch()
    with refused(grpc.StatusCode.UNAVAILABLE) as words:
        call.result()
    assert "helper died" in words[0]
    first = node.run_pod(config)
    box = node.run(first, "sleep", "1000")
    node.exec(box, "sh", "-c", "echo kept > /dev/shm/file")
    os.kill(helper_of(node), signal.SIGKILL)
    time.sleep(0.5)  # until that is noticed; a container that is made just then is refused, and its retry succeeds
    other = node.run(first, "sleep", "1000")
    assert node.exec(other, "cat", "/dev/shm/file").stdout == b"kept\n"
    node.remove_pod(first)
    assert node.left() == []
    assert list(Path("/run/netns").iterdir()) == []


def test_what_belongs_to_others_stays(networked: Ocirtd, tmp_path: Path) -> None:
    """Cgroups, mounts, rules and namespaces beside ours, whatever they are called, while a start cleans up."""
    node = networked
    pod, other = (node.run_pod(node.pod_config(options=OWN)) for _ in range(2))
    box = node.run(pod, "sleep", "1000")
    node.run(other, "sleep", "1000")
    undo: list[Callable[[], object]] = []
    for name in ("theirs", f"ocirt-ffffffff-{pod[:32]}", f"ocirt-{pod[:32]}"):
        path = make_network(name)
        undo += [lambda path=path: umount(path), Path(path).unlink]  # type: ignore[misc]
    command("nft", "add table inet theirs; add chain inet theirs c; add rule inet theirs c counter comment ocirt")
    command("ip", "link", "add", "ocirt0", "type", "bridge")
    groups = [one / node.cgroup_parent.lstrip("/") / f"theirs-{box}" for one in cgroup_mounts()]
    for group in groups:
        group.mkdir()
    mount("theirs", str(tmp_path), "tmpfs", 0)
    tree = node.place / "v/theirs"
    tree.mkdir()
    (tree / "file").touch()

    def look() -> tuple[object, ...]:
        rules = command("nft", "-s", "list", "table", "inet", "theirs")
        there = {path.name for path in Path("/run/netns").iterdir() if not path.name.endswith(f"-{other[:32]}")}
        return rules, {name for name in mounts() if str(tmp_path) in name}, there, (tree / "file").exists()

    before = look()
    node.kill()
    # What a start has to clean up: of two pods of ours one has no row any more.
    forget(node, other)
    node.start()
    assert [one.id for one in node.pods()] == [pod]
    wait_for(lambda: look() == before, f"the end of what is ours: {look()}, before {before}", 10)
    node.remove_pod(pod)
    assert all(group.is_dir() for group in groups)
    for step in undo:
        step()
    for group in groups:
        group.rmdir()
    umount(str(tmp_path))
    command("nft", "delete table inet theirs")
    command("ip", "link", "delete", "ocirt0")


def forget(node: Ocirtd, pod: str) -> None:
    """Take away the rows of a pod."""
    db = sqlite3.connect(node.place / "r/node.db")
    with db:
        db.execute("DELETE FROM pods WHERE id = ?", (pod,))
        db.execute("DELETE FROM containers WHERE pod = ?", (pod,))
    db.close()
