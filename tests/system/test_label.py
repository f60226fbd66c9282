"""Confinement by AppArmor and SELinux, where this machine has them; and what it says where it has not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocirt.containers.host import security_modules
from tests.support.runtime import Runtime
from tests.system.conftest import MakeBundle
from tests.system.test_check import checked

PROFILE = "ocirt-test"
RULES = f"""profile {PROFILE} flags=(attach_disconnected,mediate_deleted) {{
  capability, file, network, signal, unix, mount, umount, pivot_root, ptrace,
  deny /denied/** w,
}}
"""
SHOW = ["sh", "-c", "for f in /proc/self/attr/apparmor/current /proc/self/attr/current; do test -e $f && exec cat $f; done"]


def _parser() -> str:
    return shutil.which("apparmor_parser", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin") or ""


@pytest.fixture
def profile(tmp_path: Path) -> Iterator[str]:
    """A profile that denies writing below /denied."""
    if "AppArmor" not in security_modules():
        pytest.skip("this kernel runs without AppArmor")
    if not _parser():
        pytest.skip("there is no apparmor_parser to load a profile with")
    rules = tmp_path / "profile"
    rules.write_text(RULES)
    subprocess.run([_parser(), "--replace", "--skip-cache", rules], check=True)
    yield PROFILE
    subprocess.run([_parser(), "--remove", rules], check=True)


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
    container = runtime.create(made.edit(args=["sh", "-c", SHOW[2].replace("exec ", "") + "; sleep 1000"]))
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
