"""Namespaces and networks of pods, as the network helper makes them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
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
    """But for what systemd has there."""
    found = {target for target in mount_targets() if target.is_relative_to("/run")}
    return found - {helper.state / "keeper", Path("/run/lock")}


def mount_list() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def addresses_taken() -> list[Path]:
    """The files of host-local, which hold the pod's ID."""
    return [path for path in Path("/var/lib/cni/networks").rglob("10.*") if path.is_file()]


def write_plugin(helper: Helper, name: str, script: str) -> None:
    """A network of one plugin of somebody else's."""
    folder, programs = helper.state / "net.d", helper.state / "bin"
    folder.mkdir()
    programs.mkdir()
    plugin = programs / name
    plugin.write_text(f"#!/bin/sh\n{script}\n")
    plugin.chmod(0o755)
    document = {"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": name}]}
    (folder / "10-n.conflist").write_text(json.dumps(document))


def running(*words: str) -> list[str]:
    """The processes with this command line."""
    wanted = "".join(word + "\0" for word in words).encode()
    found = []
    for pid in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (pid / "cmdline").read_bytes() == wanted:
                found.append(pid.name)
    return found


def unkeep(helper: Helper) -> None:
    """What outlives every process, until the machine restarts."""
    for name in ("keeper/mnt", "keeper"):
        umount(str(helper.state / name))


def test_two_pods_see_each_other(helper: Helper, host: Host) -> None:
    mounts = own_mounts(helper)
    first, second = helper.up("a" * 64), helper.up("b" * 64)
    assert first["ips"][0].startswith(NETWORK)
    assert first["ips"] != second["ips"]
    with inside(first["namespaces"]["network"]):
        command("busybox", "ping", "-c", "1", "-W", "2", second["ips"][0])
        assert "LOOPBACK,UP" in command("ip", "link", "show", "lo")
    for pod in ("a" * 64, "b" * 64):
        helper.down(pod)
    assert own_mounts(helper) == mounts | {helper.state / "keeper/mnt"}
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
        jobs = Path(f"/proc/{helper.pid}/task/{helper.pid}/children").read_text().split()
        for job in jobs:
            os.kill(int(job), signal.SIGKILL)
        wait_for(lambda jobs=jobs: all(_has_ended(job) for job in jobs), "the end of what was killed", 10)  # type: ignore[misc]
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


def _has_ended(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_keeper_that_cannot_be_made_is_an_answer(helper: Helper, host: Host) -> None:
    (helper.state / "keeper").write_text("in the way")
    with pytest.raises(Error, match="a job cannot be begun"):
        helper.up("a" * 64)
    (helper.state / "keeper").unlink()
    assert helper.up("a" * 64)["ips"]
    helper.down("a" * 64)
    unkeep(helper)


def test_the_keeper_is_made_again_in_its_place(helper: Helper, host: Host) -> None:
    """One bind of its directory, however often: it lies on the file system that it is bound from."""
    for _ in range(3):
        helper.up("a" * 64)
        helper.down("a" * 64)
        helper.kill()
        umount(str(helper.state / "keeper/mnt"))
        helper.start()
    assert helper.up("a" * 64)["ips"]
    assert len([target for target in mount_list() if target == str(helper.state / "keeper")]) == 1
    helper.down("a" * 64)
    unkeep(helper)


def test_two_daemons_do_not_disturb_each_other(helper: Helper, host: Host) -> None:
    state = Path("/run/ocirt-other")
    state.mkdir()
    other = Helper(helper.zygote, state, "00000002")
    sent = [(one, one.send("sandbox-up", one.request(pod, ipc=True))) for one, pod in ((helper, "a" * 64), (other, "b" * 64))]
    first, second = (one.receive(number) for one, number in sent)
    assert {one["ips"][0].split(".")[1] for one in (first, second)} == {"85", "86"}
    assert {name for _, name in socket.if_nameindex() if name.startswith("ocirt")} == {"ocirt00000001", "ocirt00000002"}
    # Neither takes what is the other's for its own.
    assert helper.strays("a" * 64) == other.strays("b" * 64) == []
    assert other.strays() == ["b" * 64]
    with inside(first["namespaces"]["network"]):
        command("busybox", "ping", "-c", "1", "-W", "2", first["ips"][0])
    other.down("b" * 64)
    assert helper.up("c" * 64)["ips"][0] != first["ips"][0]
    for pod in ("a" * 64, "c" * 64):
        helper.down(pod)
    unkeep(other)
    other.close()
    unkeep(helper)


def test_what_no_row_knows_is_found(helper: Helper, host: Host) -> None:
    """What is kept or attached; of an attachment that nobody remembers, the address."""
    helper.up("a" * 64)
    helper.up("b" * 64)
    before = {path for path in addresses_taken() if path.read_text().startswith("a" * 64)}
    assert len(before) == 1
    (remembered,) = Path("/var/lib/ocirt-00000001/cni/results").glob(f"*-{'a' * 64}-*")
    remembered.unlink()
    assert helper.strays("b" * 64) == ["a" * 64]
    assert {path for path in addresses_taken() if path.read_text().startswith("a" * 64)} == set()
    helper.down("a" * 64)
    assert helper.strays("b" * 64) == []
    assert Path(f"/run/netns/ocirt-{'b' * 64}").exists()
    helper.down("b" * 64)
    unkeep(helper)


def test_an_attachment_that_was_cut_short_is_undone(helper: Helper, host: Host) -> None:
    """By a plugin of somebody else's: nothing of it is remembered, and all the same it is asked."""
    write_plugin(helper, "notes", 'echo "$CNI_COMMAND $CNI_CONTAINERID" >>/run/said; test $CNI_COMMAND != ADD || kill -9 $PPID')
    with pytest.raises(Error, match="was killed"):
        helper.up("a" * 64)
    helper.down("a" * 64)
    assert Path("/run/said").read_text().split() == ["ADD", "a" * 64, "DEL", "a" * 64]
    unkeep(helper)


def test_a_job_that_takes_too_long_is_given_up(helper: Helper, host: Host) -> None:
    """With what it has executed; the next one begins anew."""
    write_plugin(helper, "hangs", 'test -e /run/go || { sleep 611 & sleep 612; }; echo \'{"cniVersion": "1.0.0"}\'')
    with pytest.raises(Error, match=r"was not done after 0.7 s.*network.timeout"):
        helper.up("a" * 64, seconds=0.7)
    wait_for(lambda: not running("sleep", "611") and not running("sleep", "612"), "the end of what it has executed", 5)
    Path("/run/go").touch()
    helper.down("a" * 64, seconds=20)
    assert helper.up("a" * 64, seconds=20)["ips"] == []
    helper.down("a" * 64)
    unkeep(helper)


def test_a_port_of_the_host(helper: Helper, host: Host) -> None:
    ports = [{"hostPort": 8099, "containerPort": 80, "protocol": "tcp"}]
    made = helper.up("a" * 64, cni={"capabilities": {"portMappings": ports}})
    with inside(made["namespaces"]["network"]):
        server = socket.create_server(("0.0.0.0", 80))
    with server, socket.create_connection(("10.85.0.1", 8099), timeout=5) as client:
        server.settimeout(5)
        accepted = server.accept()[0]
        with accepted:
            client.sendall(b"there")
            assert accepted.recv(16) == b"there"
    helper.down("a" * 64)
    with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
        socket.create_connection(("10.85.0.1", 8099), timeout=1)
    unkeep(helper)
