"""The search for leaks finds each kind of thing that a test can leave behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.build import ROOT
from tests.support.isolation import MS_BIND, Isolation, cgroup_mounts, mount, remove_tree
from tests.support.leaks import Leak, Leaks, Snapshot, cgroups
from tests.support.runtime import TIMEOUT

CONFTEST = "from tests.system.conftest import *\n"
HEAD = """
import ctypes, os, socket, subprocess, sys
from pathlib import Path
from tests.support import isolation as place
"""
# What the test does, and what the search has to call it.
LEAKY = {
    "process": ('subprocess.Popen(["sleep", "60"], start_new_session=True).returncode = 0', "process: left behind: .*sleep"),
    # It is there when the shell returns, but may be any of the three still.
    "daemon": (
        'subprocess.run("(setsid sleep 61 &) </dev/null >/dev/null 2>&1", shell=True)',
        r"process: left behind: \d+ (sh|setsid|sleep), ",
    ),
    "mount": ('place.mount("tmpfs", str(tmp_path), "tmpfs", 0)', "mount: left behind: .*tmpfs"),
    "remount": ('place.mount("none", "/", "none", 1 << 20)', "mount: changed: / "),
    "cgroup": ("(place.cgroup_mounts()[0] / isolation.cgroup_parent[1:] / 'x').mkdir()", "cgroup: left behind: .*/x"),
    "namespace": (
        'p = subprocess.Popen(["unshare", "-u", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE);'
        ' p.stdin.write(b"x"); p.stdin.flush(); p.stdout.read(1);'
        ' globals()["kept"] = os.open(f"/proc/{p.pid}/ns/uts", os.O_RDONLY); p.stdin.close(); p.stdout.close(); p.wait()',
        r"namespace: left behind: uts:",
    ),
    "link": ('subprocess.run(["ip", "link", "add", "leaky0", "type", "veth"], check=True)', "link: left behind: leaky0"),
    "nft rule": ('subprocess.run(["nft", "add", "table", "inet", "leaky"], check=True)', "nft rule: left behind: .*leaky"),
    "sysctl": ('Path("/proc/sys/net/ipv4/ip_forward").write_text("1" if "0" in Path("/proc/sys/net/ipv4/ip_forward").read_text()'
               ' else "0")', "sysctl: changed: net/ipv4/ip_forward"),
    "hostname": ('socket.sethostname("leaky")', "sysctl: changed: kernel/hostname"),
}  # fmt: skip


def run_tests(path: Path, body: str, grace: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a test file of one test with this body, by a session of its own; `grace` in seconds."""
    (path / "conftest.py").write_text(CONFTEST)
    (path / "test_it.py").write_text(f"{HEAD}\ndef test_it(isolation, tmp_path):\n    {body}\n")
    command = [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "--rootdir", str(path)]
    command += ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]  # a third of the time
    return subprocess.run(
        [*command, "-c", "/dev/null", str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OCIRT_TEST_ALONE": "", "OCIRT_TEST_GRACE": str(grace)},
        cwd=path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.mark.parametrize("kind", LEAKY)
def test_a_leak_fails_the_test_that_leaves_it(kind: str, tmp_path: Path) -> None:
    """A test that leaves something fails, and the message names it."""
    body, message = LEAKY[kind]
    done = run_tests(tmp_path, body, grace=0.3)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 passed, 1 error" in done.stdout  # the test itself was fine
    assert re.search(message, done.stdout), done.stdout


def test_what_ends_by_itself_is_no_leak(tmp_path: Path) -> None:
    """A process that dies soon after the test, and one that nobody waits for, are forgiven."""
    body = 'subprocess.run("(setsid sleep 0.5 &) </dev/null >/dev/null 2>&1; (setsid true &)", shell=True)'
    done = run_tests(tmp_path, body)
    assert done.returncode == 0, done.stdout + done.stderr


def test_time_alone_makes_no_leak() -> None:
    """On a busy machine one look can take as long as what ends by itself may: there are some more before it is called a leak."""
    leaks = Leaks("nobody")
    seen = iter([{"it": ""}, {"it": ""}, {"it": ""}])
    leaks.kinds = {"process": lambda: next(seen, {})}
    assert leaks.compare(Snapshot({"process": {}}), grace=0) == []
    leaks.kinds = {"process": lambda: {"it": ""}}
    assert leaks.compare(Snapshot({"process": {}}), grace=0) == [Leak("process", "left behind", "it")]


def test_other_sessions_do_not_disturb(tmp_path: Path, isolation: Isolation) -> None:
    """Mounts, links, processes and cgroups that somebody else makes at the same time are no leak of ours."""
    target = tmp_path / "theirs"
    target.mkdir()
    group = cgroup_mounts()[0] / isolation.cgroup_parent[1:] / "theirs"
    script = f"mount -t tmpfs tmpfs {target} && ip link add theirs0 type veth && mkdir {group}"
    us = f'"--mount=/proc/{os.getpid()}/ns/mnt", "--net=/proc/{os.getpid()}/ns/net"'
    try:
        done = run_tests(tmp_path, f'subprocess.run(["nsenter", {us}, "sh", "-c", "{script}"], check=True)')
    finally:
        subprocess.run(["sh", "-c", f"umount {target}; ip link delete theirs0; rmdir {group}"], check=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alone_on_a_machine_every_cgroup_counts(isolation: Isolation) -> None:
    """Also one whose name says nothing; otherwise those of our session only."""
    group = cgroup_mounts()[0] / isolation.cgroup_parent[1:] / "anything"
    group.mkdir()
    try:
        assert str(group) in cgroups("not in its name", everything=True)
        assert str(group) not in cgroups("not in its name", everything=False)
        assert str(group) in cgroups(isolation.token, everything=False)
    finally:
        group.rmdir()


def test_the_network_is_our_own(isolation: Isolation) -> None:
    """Unless a test asks for the machine's."""
    own, host = (os.fstat(fd).st_ino for fd in (isolation.own_network, isolation.host_network))
    assert os.stat("/proc/self/ns/net").st_ino == own != host


@pytest.mark.host_network
def test_the_machines_network(isolation: Isolation) -> None:
    """For tests that fetch something."""
    assert os.stat("/proc/self/ns/net").st_ino == os.fstat(isolation.host_network).st_ino


def test_a_mount_that_was_left_keeps_its_files(tmp_path: Path) -> None:
    """Removing a bundle does not reach through a bind mount that a runtime left in it."""
    host, bundle = tmp_path / "host", tmp_path / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    host.mkdir()
    (host / "file").write_text("precious")
    mount(str(host), str(bundle / "rootfs"), "none", MS_BIND)
    mount(str(host), str(bundle / "rootfs"), "none", MS_BIND)
    remove_tree(bundle)
    assert not bundle.exists()
    assert (host / "file").read_text() == "precious"
