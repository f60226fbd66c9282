"""Namespaces and networks of pods, as the network helper makes them."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from ocirt.errors import Error
from tests.support.isolation import mount_targets, umount
from tests.support.networks import Host, command, inside
from tests.support.runtime import wait_for
from tests.system.cri_network.conftest import Helper

NETWORK = "10.85."


def own_mounts(helper: Helper) -> set[Path]:
    return {target for target in mount_targets() if target.is_relative_to("/run")} - {helper.state / "keeper"}


def unkeep(helper: Helper) -> None:
    """What outlives every process, until the machine restarts."""
    for name in ("keeper/mnt", "keeper"):
        umount(str(helper.state / name))


def test_two_pods_see_each_other(helper: Helper, host: Host) -> None:
    first, second = helper.up("a" * 64), helper.up("b" * 64)
    assert first["ips"][0].startswith(NETWORK)
    assert first["ips"] != second["ips"]
    with inside(first["namespaces"]["network"]):
        command("busybox", "ping", "-c", "1", "-W", "2", second["ips"][0])
        assert "LOOPBACK,UP" in command("ip", "link", "show", "lo")
    for pod in ("a" * 64, "b" * 64):
        helper.down(pod)
    assert own_mounts(helper) == {Path("/run"), helper.state / "keeper/mnt"}
    unkeep(helper)
    wait_for(lambda: not any(name.startswith("link veth") for name in host.traces()), "the end of the links", 5)


def test_what_it_costs_the_host(helper: Helper, host: Host) -> None:
    """Two mounts: the network namespace and /dev/shm."""
    helper.up("a" * 64)
    before = own_mounts(helper)
    made = helper.up("b" * 64)
    assert own_mounts(helper) - before == {Path(f"/run/netns/ocirt-{'b' * 64}"), Path(made["shm"])}
    helper.down("a" * 64)
    helper.down("b" * 64)
    unkeep(helper)


def test_namespaces_outlive_the_helper(helper: Helper, host: Host) -> None:
    made = helper.up("a" * 64, sysctls={"kernel.shm_rmid_forced": "1", "net.ipv4.ip_unprivileged_port_start": "0"})
    inode = os.stat(made["namespaces"]["ipc"]).st_ino
    assert inode != os.stat("/proc/self/ns/ipc").st_ino
    helper.kill()
    helper.start()
    found = helper.call("sandbox-paths", helper.request("a" * 64))
    assert found["namespaces"]["ipc"] != made["namespaces"]["ipc"]
    assert os.stat(found["namespaces"]["ipc"]).st_ino == inode
    assert found["shm"] == made["shm"]
    with inside(found["namespaces"]["network"]):
        assert Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text() == "0\n"
    helper.down("a" * 64)
    helper.down("a" * 64)
    assert helper.call("sandbox-paths", helper.request("a" * 64, netns=""))["namespaces"] == {}
    unkeep(helper)


def test_a_user_namespace(helper: Helper, host: Host) -> None:
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    made = helper.up("a" * 64, uid_mappings=maps, gid_mappings=maps)
    assert set(made["namespaces"]) == {"network", "ipc", "uts", "user"}
    status = os.stat(made["shm"])
    assert (status.st_uid, status.st_mode & 0o7777) == (100000, 0o1777)
    helper.down("a" * 64)
    unkeep(helper)


def test_the_node_network(helper: Helper, host: Host) -> None:
    made = helper.call("sandbox-up", helper.request("a" * 64, netns="", ipc=True))
    assert (set(made["namespaces"]), made["ips"]) == ({"ipc"}, [])
    helper.down("a" * 64, netns="")
    unkeep(helper)


def test_a_network_that_is_configured(helper: Helper, host: Host) -> None:
    folder = helper.state / "net.d"
    folder.mkdir()
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/24"}]]}
    document = {"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "ptp", "ipam": ipam}]}
    (folder / "10-n.conflist").write_text(json.dumps(document))
    assert helper.up("a" * 64)["ips"][0].startswith("10.99.0.")
    (folder / "10-n.conflist").unlink()
    helper.down("a" * 64)  # as it was made
    unkeep(helper)
    wait_for(lambda: not any(name.startswith("address 10.99.0") for name in host.traces()), "the end of the link", 5)


def test_a_network_that_cannot_be_used(helper: Helper, host: Host) -> None:
    folder = helper.state / "net.d"
    folder.mkdir()
    (folder / "10-n.conflist").write_text("{")
    assert not helper.call("status", helper.request(""))["ready"]
    with pytest.raises(Error, match="no network can be used"):
        helper.up("a" * 64)
    assert own_mounts(helper) == {Path("/run"), helper.state / "keeper/mnt"}
    (folder / "10-n.conflist").unlink()
    assert helper.call("status", helper.request(""))["ready"]
    unkeep(helper)


def test_a_plugin_that_hangs_keeps_nobody_waiting(helper: Helper, host: Host) -> None:
    folder, programs = helper.state / "net.d", helper.state / "bin"
    folder.mkdir()
    programs.mkdir()
    plugin = programs / "slow"
    plugin.write_text(
        '#!/bin/sh\ncat >/dev/null\nwhile ! test -e /run/go; do sleep 0.05; done\necho \'{"cniVersion": "1.0.0"}\'\n'
    )
    plugin.chmod(0o755)
    document = {"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "slow"}]}
    (folder / "10-n.conflist").write_text(json.dumps(document))
    slow = helper.send("sandbox-up", helper.request("a" * 64))
    (helper.state / "other").mkdir()
    other = helper.up("b" * 64, cni={"config_dir": str(helper.state / "other")})
    assert other["ips"]
    Path("/run/go").touch()
    assert helper.receive(slow)["ips"] == []
    helper.down("a" * 64)
    helper.down("b" * 64)
    unkeep(helper)


def test_a_shared_pid_namespace(helper: Helper, host: Host) -> None:
    made = helper.up("a" * 64, pid=True)
    pid = int(made["namespaces"]["pid"].split("/")[2])
    assert Path(f"/proc/{pid}/status").read_text().count("\t1\n")
    helper.down("a" * 64)
    wait_for(lambda: not Path(f"/proc/{pid}/exe").exists(), "the end of the pod's init", 5)
    unkeep(helper)


def test_addresses_that_the_host_has_routes_to(helper: Helper, host: Host) -> None:
    command("ip", "route", "add", "blackhole", "10.85.128.0/24")
    first, second = helper.up("a" * 64), helper.up("b" * 64)
    assert [one["ips"][0].startswith("10.86.") for one in (first, second)] == [True, True]
    for pod in ("a" * 64, "b" * 64):
        helper.down(pod)
    command("ip", "route", "delete", "blackhole", "10.85.128.0/24")
    unkeep(helper)


def test_sysctls_by_either_spelling(helper: Helper, host: Host) -> None:
    """On a pod that shares the host's IPC namespace too."""
    wanted = {"net/ipv4/conf/lo/rp_filter": "2", "net.ipv4.ip_unprivileged_port_start": "7"}
    made = helper.call("sandbox-up", helper.request("a" * 64, uts=True, sysctls=wanted))
    with inside(made["namespaces"]["network"]):
        assert Path("/proc/sys/net/ipv4/conf/lo/rp_filter").read_text() == "2\n"
        assert Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text() == "7\n"
    helper.down("a" * 64)
    unkeep(helper)


@pytest.mark.parametrize("name", ["kernel/threads-max", "vm.swappiness", "net/../kernel/threads-max"])
def test_a_sysctl_of_the_machine_is_refused(helper: Helper, host: Host, name: str) -> None:
    with pytest.raises(Error, match="not a sysctl of a pod's own namespaces"):
        helper.up("a" * 64, sysctls={name: "1"})
    assert own_mounts(helper) == {Path("/run"), helper.state / "keeper/mnt"}
    unkeep(helper)


def test_a_plugin_that_hangs_is_given_up(helper: Helper, host: Host) -> None:
    folder, programs = helper.state / "net.d", helper.state / "bin"
    folder.mkdir()
    programs.mkdir()
    plugin = programs / "hangs"
    plugin.write_text("#!/bin/sh\ncase $CNI_COMMAND in ADD) exec sleep 600;; esac\n")
    plugin.chmod(0o755)
    document = {"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "hangs"}]}
    (folder / "10-n.conflist").write_text(json.dumps(document))
    with pytest.raises(Error, match="not done after 0.5 s"):
        helper.up("a" * 64, cni={"timeout": 0.5, "config_dir": str(folder), "bin_dirs": [str(programs)]})
    assert own_mounts(helper) == {Path("/run"), helper.state / "keeper/mnt"}
    helper.down("a" * 64)
    unkeep(helper)


def test_what_a_killed_job_has_made_is_taken_back(helper: Helper, host: Host) -> None:
    """At whichever point; and the helper goes on."""
    helper.up("b" * 64)
    before, kills = own_mounts(helper), 0
    for number in range(24):
        pod = f"{number:064x}"
        sent = helper.send("sandbox-up", helper.request(pod, ipc=True, uts=True, hostname="half"))
        time.sleep(number / 1000)
        for job in Path(f"/proc/{helper.pid}/task/{helper.pid}/children").read_text().split():
            os.kill(int(job), signal.SIGKILL)
        try:
            helper.receive(sent)
        except Error as err:
            assert "was killed" in str(err)
            kills += 1
        helper.down(pod)
        assert own_mounts(helper) == before
        assert not Path(f"/run/netns/ocirt-{pod}").exists()
        assert helper.call("sandbox-paths", helper.request(pod, netns=""))["namespaces"] == {}
    assert kills
    assert helper.up("c" * 64)["ips"]
    for pod in ("b" * 64, "c" * 64):
        helper.down(pod)
    unkeep(helper)
    wait_for(lambda: not any(name.startswith("link veth") for name in host.traces()), "the end of the links", 5)


def test_a_keeper_that_cannot_be_made_is_an_answer(helper: Helper, host: Host) -> None:
    (helper.state / "keeper").write_text("in the way")
    with pytest.raises(Error, match="a job cannot be begun"):
        helper.up("a" * 64)
    (helper.state / "keeper").unlink()
    assert helper.up("a" * 64)["ips"]
    helper.down("a" * 64)
    unkeep(helper)
