"""Confinement by AppArmor and SELinux, where this machine has them; and what it says where it has not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocirt.containers.host import security_modules
from ocirt.spec.capabilities import NAMES
from tests.support import apparmor
from tests.support.bundle import cgroup_mount
from tests.support.runtime import Runtime, wait_for
from tests.system.conftest import MakeBundle
from tests.system.test_check import checked

SHOW = ["sh", "-c", apparmor.SHOW]
ALL = {kind: list(NAMES) for kind in ("bounding", "effective", "permitted")}


@pytest.fixture
def profile() -> Iterator[str]:
    """A profile that denies writing below /denied."""
    apparmor.need()
    with apparmor.loaded("ocirt-test", "deny /denied/** w,") as name:
        yield name


@pytest.fixture
def own(runtime: Runtime) -> Iterator[str]:
    """The runtime's own profile, by another name than it has on a node."""
    apparmor.need()
    name = "ocirt-test-own"
    runtime.call("apparmor", "--load", name).ok()
    runtime.call("apparmor", "--load", name).ok()
    yield name
    apparmor.remove(name)


def _exec_detached(runtime: Runtime, container: str) -> int:
    pid_file = runtime.work / "exec.pid"
    runtime.detached("exec", "-d", "--pid-file", pid_file, container, "sleep", "1000", out=runtime.work / "exec.out").ok()
    return int(pid_file.read_text())


@pytest.mark.ocirt_only("peers find out when init is half-way")
@pytest.mark.parametrize(
    ("module", "pointer", "edits"),
    [
        ("AppArmor", "/process/apparmorProfile", {"process": {"apparmorProfile": "docker-default"}}),
        ("SELinux", "/process/selinuxLabel", {"process": {"selinuxLabel": "system_u:system_r:container_t:s0"}}),
        ("SELinux", "/linux/mountLabel", {"linux": {"mountLabel": "system_u:object_r:container_file_t:s0"}}),
    ],
)
def test_a_module_that_is_not_there(
    runtime: Runtime, bundle: MakeBundle, module: str, pointer: str, edits: dict[str, object]
) -> None:
    """Said with its name, before anything is made; of exec too."""
    if module in security_modules():
        pytest.skip(f"this kernel runs with {module}")
    runtime.run(bundle(**edits)).failed(f"{pointer}: not supported: {module} is not enabled on this host", rc=1)
    container = runtime.run_detached(bundle(args=["sleep", "1000"]))
    if "process" in edits:
        flag = "--apparmor" if module == "AppArmor" else "--process-label"
        runtime.exec(container, "true", flags=[flag, "x"]).failed(f"{module} is not enabled on this host", rc=255)
    else:
        runtime.exec(container, "true").ok()


def test_a_profile(runtime: Runtime, bundle: MakeBundle, profile: str) -> None:
    """It confines the program, from its first instruction, also a start later; and another user's."""
    made = bundle(process={"apparmorProfile": profile}, args=SHOW)
    (made.rootfs / "denied").mkdir()
    (made.rootfs / "denied").chmod(0o777)
    assert runtime.run(made).ok().out.strip() == f"{profile} (enforce)"
    if runtime.is_ocirt:
        runtime.call("check", made.path).ok()
    made.edit(user={"uid": 1000, "gid": 1000})
    assert runtime.run(made).ok().out.strip() == f"{profile} (enforce)"
    made.edit(user={"uid": 0, "gid": 0}, args=["sh", "-c", "echo x > /fine && echo x > /denied/x"])
    assert "Permission denied" in runtime.run(made).failed().err
    assert (made.rootfs / "fine").exists()
    container = runtime.create(made.edit(args=["sh", "-c", SHOW[2] + "; sleep 1000"]))
    assert Path(f"/proc/{runtime.pid(container)}/attr/current").read_text().strip() == "unconfined"
    runtime.start(container).ok()
    runtime.wait_output(container, f"{profile} (enforce)")


def test_a_profile_of_exec(runtime: Runtime, bundle: MakeBundle, profile: str) -> None:
    """The container's, that of a flag, and that of a process.json."""
    plain = runtime.run_detached(bundle(args=["sleep", "1000"]))
    assert runtime.exec(plain, *SHOW).ok().out.strip() == "unconfined"
    assert runtime.exec(plain, *SHOW, flags=["--apparmor", profile]).ok().out.strip() == f"{profile} (enforce)"
    made = bundle(args=["sleep", "1000"], process={"apparmorProfile": profile})
    container = runtime.run_detached(made)
    assert runtime.exec(container, *SHOW).ok().out.strip() == f"{profile} (enforce)"
    path = made.path / "process.json"
    path.write_text(json.dumps({"args": SHOW, "cwd": "/", "env": ["PATH=/bin"]}))
    assert runtime.call("exec", "--process", path, container).ok().out.strip() == f"{profile} (enforce)"


def test_a_profile_that_is_not_loaded(runtime: Runtime, bundle: MakeBundle, profile: str) -> None:
    """The kernel says so at once, not at start; nothing is left."""
    made = bundle(process={"apparmorProfile": profile + "-unknown"})
    runtime.try_create(made).failed("/process/apparmorProfile|apparmor", rc=1)
    if runtime.is_ocirt:
        [finding] = checked(runtime, made)
        assert (finding["pointer"], finding["severity"]) == ("/process/apparmorProfile", "error")
        assert checked(runtime, made.edit(process={"apparmorProfile": profile})) == []


def test_a_fake_proc_gets_no_profile(runtime: Runtime, bundle: MakeBundle, profile: str) -> None:
    """An image whose /proc would swallow what is written: the host's is used, before the container's is in sight."""
    made = bundle(args=["sleep", "1000"], edit=lambda config: config["mounts"].pop(0), maskedPaths=[], readonlyPaths=[])
    for name in ("self", "thread-self"):
        fake = made.rootfs / "proc" / name / "attr/apparmor"
        fake.mkdir(parents=True)
        (fake / "exec").write_text("")
    container = runtime.run_detached(made.edit(process={"apparmorProfile": profile}))
    for pid in (runtime.pid(container), _exec_detached(runtime, container)):
        assert Path(f"/proc/{pid}/attr/current").read_text().strip() == f"{profile} (enforce)"
    for name in ("self", "thread-self"):
        assert (made.rootfs / "proc" / name / "attr/apparmor/exec").read_text() == ""


# What the runtime's own profile denies to root with all capabilities, the host's processes in sight and nothing read-only: it
# works without the profile. PID is a process of the host.
_DENIED = {
    "a knob of the kernel": "f=/proc/sys/vm/swappiness; v=$(cat $f); echo $v >$f",
    "a knob of a namespace": "echo x >/proc/sys/kernel/domainname",
    "a file of /proc": "echo h >/proc/sysrq-trigger",
    "a knob of /sys": "f=/sys/class/net/lo/ifalias; echo x >$f",
    "firmware": "cat /sys/firmware/acpi/tables/DSDT",
    "profiles": "cat /sys/kernel/security/apparmor/profiles",
    "a mount": "mount -t tmpfs x /mnt",
    "a bind": "mount -o bind /bin /mnt",
    "a remount": "mount -o remount,ro /dev/shm",
    "an unmount": "umount /dev/mqueue",
    "a signal": "kill -CONT PID",
    "a look into a process": "cat /proc/PID/environ",
}
_ALLOWED = {
    "a file": "echo x >/x && rm /x",
    "its own process": "echo 5 >/proc/self/oom_score_adj",
    "a socket": "busybox ip link",
    "a program": "cd /root && cat /bin/busybox >busybox && chmod +x busybox && ./busybox true",
    "a child": "sleep 100 & kill $!",
    "a cgroup": "mkdir /sys/fs/cgroup/x && rmdir /sys/fs/cgroup/x",
}


@pytest.mark.ocirt_only("the profile is ocirt's own")
def test_our_own_profile(runtime: Runtime, bundle: MakeBundle, own: str) -> None:
    """By effect, and beside a container without it."""
    made = bundle(args=["sleep", "1000"], capabilities=ALL, maskedPaths=[], readonlyPaths=[], add_mounts=[cgroup_mount()])

    def edit(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"] = [one for one in config["linux"]["namespaces"] if one["type"] != "pid"]
        for mount in config["mounts"]:
            mount["options"] = [one for one in mount.get("options", ()) if one != "ro"]
        config["mounts"].append({"destination": "/sys/kernel/security", "source": "/sys/kernel/security", "options": ["bind"]})

    made.edit(edit=edit)
    (made.rootfs / "mnt").mkdir(exist_ok=True)
    plain = runtime.run_detached(made)
    confined = runtime.run_detached(made.edit(process={"apparmorProfile": own}))
    assert runtime.exec(confined, *SHOW).ok().out.strip() == f"{own} (enforce)"
    lines = [f"if ({command}) >/dev/null 2>&1; then echo {what}; fi" for what, command in (_DENIED | _ALLOWED).items()]
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            script = "\n".join(lines).replace("PID", str(process.pid))
            works = {name: set(runtime.exec(name, "sh", "-c", script).out.splitlines()) for name in (plain, confined)}
        finally:
            process.kill()
    assert works == {plain: {*_DENIED, *_ALLOWED}, confined: set(_ALLOWED)}
    # From outside: a signal reaches it, and ends it.
    runtime.kill(confined, "KILL").ok()
    wait_for(lambda: runtime.status(confined) == "stopped", "its end")


@pytest.mark.ocirt_only("the profile is ocirt's own")
def test_two_containers_of_one_profile(runtime: Runtime, bundle: MakeBundle, own: str, profile: str) -> None:
    """They may look at each other, where namespaces let them, and at no container of another profile."""

    def edit(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"] = [one for one in config["linux"]["namespaces"] if one["type"] != "pid"]

    made = bundle(args=["sleep", "1000"], capabilities=ALL, edit=edit)
    first, second = (runtime.run_detached(made.edit(process={"apparmorProfile": own})) for _ in range(2))
    other = runtime.run_detached(made.edit(process={"apparmorProfile": profile}))
    for command in ("cat /proc/{}/environ", "kill -CONT {}"):
        runtime.exec(first, "sh", "-c", command.format(runtime.pid(second))).ok()
        runtime.exec(first, "sh", "-c", command.format(runtime.pid(other))).failed("denied")
