"""Attacks by containers that run, on `exec` and on what is kept about them; see test_attacks.py for those by images."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest

from ocirt.cgroups.layout import detect
from tests.support.attacks import Attacked, Victim, against, poison_libraries, poison_modules, without
from tests.support.bundle import cgroup_mount
from tests.support.isolation import Isolation
from tests.support.runtime import Runtime, default_command
from tests.system.conftest import MakeBundle

pytestmark = pytest.mark.ocirt_only("rules are switched off in ocirt's own code")

NOBODY = 65534
ADMIN = {kind: ["CAP_SYS_ADMIN", "CAP_KILL", "CAP_DAC_OVERRIDE"] for kind in ("bounding", "effective", "permitted")}


@pytest.mark.parametrize("off", [False, True], ids=["held", "without launcher and protect"])
def test_interpreter_is_seen_from_another_process(runtime: Runtime, bundle: MakeBundle, tmp_path: Path, off: bool) -> None:  # noqa: FBT001
    """A process of the container waits for whoever comes in, and keeps what he executes, to write to it later (CVE-2019-5736)."""
    victim = Victim(tmp_path)
    script = """
        echo ready
        until for p in /proc/[0-9]*; do
                case $(readlink $p/exe) in */python3*) (: <$p/exe) 2>/dev/null && exec 3<$p/exe && break;; esac
                false
            done
        do test -e /enough && break; done
        echo caught
        n=0
        until (printf overwritten >/proc/self/fd/3) 2>/dev/null || test $n = 50; do n=$((n + 1)); sleep 0.02; done
        echo done
    """
    container = runtime.run_detached(bundle(args=["sh", "-c", script]))
    root = Path(f"/proc/{runtime.pid(container)}/root")
    runtime.wait_output(container, "ready")
    runtime.command = without("protect,slow", victim.python) if off else victim.launcher
    try:
        for _ in range(15):
            runtime.exec(container, "true")
            if off and "caught" in runtime.output_of(container).read_text():
                break
    finally:
        runtime.command = default_command()
    with contextlib.suppress(FileNotFoundError):  # who has caught one may have ended
        (root / "enough").touch()
    said = runtime.wait_output(container, "done")
    assert victim.overwritten() == off, said


@against("score_in_host_proc")
def test_proc_of_the_container_s_making(attacked: Attacked, bundle: MakeBundle, tmp_path: Path) -> None:
    """A container that may mount has a directory of its own at /proc: who comes in must write nothing there (CVE-2025-52881)."""
    script = """
        mount -t tmpfs none /proc && mkdir -p /proc/self/attr /proc/self/fd /proc/1 /proc/thread-self &&
        for f in self/attr/exec self/oom_score_adj self/uid_map self/setgroups 1/oom_score_adj; do : >/proc/$f; done; echo ready
        sleep 1000
    """
    container = attacked.runtime.run_detached(bundle(args=["sh", "-c", script], capabilities=ADMIN))
    attacked.runtime.wait_output(container, "ready")
    process = bundle(args=["cat", "/proc/self/oom_score_adj", "/proc/self/attr/exec"], capabilities=ADMIN).config["process"]
    (tmp_path / "process.json").write_text(json.dumps({**process, "oomScoreAdj": 77}))
    done = attacked.runtime.call("exec", "--process", tmp_path / "process.json", container).ok()
    attacked.judge(success="77" in done.out, what=done)


@against("null_opened_blindly")
def test_exec_into_a_container_that_holds_on(attacked: Attacked, bundle: MakeBundle, tmp_path: Path) -> None:
    """Everything that might be opened is a FIFO, which would hold whoever opens it, or leads in circles."""
    script = """
        mount -t tmpfs none /proc
        for f in /dev/null /dev/zero /dev/tty /etc/passwd /etc/group /etc/nsswitch.conf /etc/ld.so.cache
        do rm -f $f; mkfifo $f; done
        ln -s loop /loop; ln -s /loop/x /dev/console; rm -rf /dev/ptmx; ln -s /loop /dev/ptmx
        echo ready
        while :; do sleep 1; done
    """
    made = bundle(args=["sh", "-c", script], capabilities=ADMIN)
    ran = poison_modules(made.rootfs)
    poison_libraries(made.rootfs, tmp_path)
    container = attacked.runtime.run_detached(made)
    attacked.runtime.wait_output(container, "ready")
    ran.unlink(missing_ok=True)
    try:
        done = attacked.runtime.exec(container, "echo", "in", timeout=1.5 if attacked.off else 20)
        held = done.ok().out != "in\n"
        attacked.runtime.exec(container, "true", flags=["--cwd", "/loop/x"]).failed("chdir to cwd", rc=255)
        attacked.runtime.exec(container, "/loop/true").failed("/loop/true", rc=255)
    except subprocess.TimeoutExpired:
        held = True
    assert not ran.exists()
    attacked.judge(success=held)


@against("numbers_only")
def test_number_that_is_a_name(attacked: Attacked, bundle: MakeBundle) -> None:
    """The image has a user called 1000, who is root (CVE-2016-3697)."""
    made = bundle(args=["sleep", "1000"])
    (made.rootfs / "etc/passwd").write_text("1000:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home:/bin/sh\n")
    done = attacked.runtime.exec(attacked.runtime.run_detached(made), "sh", "-c", "id -u; echo $HOME", flags=["--user=1000"])
    attacked.judge(success=done.ok().out != "1000\n/home\n", what=done)


@pytest.mark.parametrize("user", ["1000x", "alice", "-1", "4294967296", "1000:x", "0x0"])
@against("strict_numbers")
def test_user_that_is_no_number(attacked: Attacked, bundle: MakeBundle, user: str) -> None:
    """What begins like a number, or is none, must not end as root, or as anybody (CVE-2026-30892)."""
    container = attacked.runtime.run_detached(bundle(args=["sleep", "1000"], user={"uid": 7, "gid": 7}))
    done = attacked.runtime.exec(container, "id", "-u", flags=[f"--user={user}"])
    attacked.judge(success=done.rc == 0 and done.out != "7\n", what=done)


@against("inheritable_empty")
def test_capabilities_that_a_file_inherits(attacked: Attacked, bundle: MakeBundle) -> None:
    """A file with inheritable capabilities gives its user what he does not have (CVE-2022-29162, CVE-2022-27650)."""
    net_raw = 1 << 13
    made = bundle(args=["sleep", "1000"], user={"uid": 1000, "gid": 1000}, capabilities=None, noNewPrivileges=False)
    program = made.rootfs / "bin/inherits"
    program.write_bytes((made.rootfs / "bin/probe").read_bytes())
    program.chmod(0o755)
    # VFS_CAP_REVISION_2 with the effective flag: permitted, inheritable, and their upper halves.
    os.setxattr(program, "security.capability", struct.pack("<5I", 0x02000001, 0, net_raw, 0, 0))
    container = attacked.runtime.run_detached(made)
    seen = attacked.runtime.exec(container, "/bin/inherits", flags=["--cap", "CAP_NET_RAW"]).ok().json()["caps"]
    assert seen["bounding"] & net_raw
    attacked.judge(success=bool(seen["permitted"] & net_raw), what=seen)


@pytest.fixture
def everybody_s(no_leaks: list[Path]) -> Path:
    """A directory that every user can reach."""
    place = Path(tempfile.mkdtemp(prefix="ocirt-test-"))
    no_leaks.append(place)
    place.chmod(0o755)
    return place


@pytest.mark.parametrize("verb", ["create", "run"])
@against("private_state")
def test_state_is_nobody_else_s(attacked: Attacked, bundle: MakeBundle, everybody_s: Path, verb: str) -> None:
    """Whoever can read what is kept has the environment of containers, and who can write to it has root's hooks.

    The class of CVE-2021-41103. Every file there is looked at, with a caller whose umask takes nothing away.
    """
    runtime = attacked.runtime
    runtime.root = everybody_s / "root"
    runtime.command = ["sh", "-c", 'umask 0; exec "$@"', "sh", *runtime.command]
    rule = {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}
    made = bundle(args=["sleep", "1000"], env=["PATH=/bin", "SECRET=secret words"], hooks={"poststop": [{"path": "/bin/true"}]})
    made.edit(seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    container = runtime.create(made) if verb == "create" else runtime.run_detached(made)
    names = {path: path.lstat().st_mode for path in [runtime.root, *runtime.root.rglob("*")]}
    assert {path.name for path in names} > {"root", container, "state.json", "seccomp.json", "@seccomp"}
    record = str(runtime.root / container / "state.json")
    read = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "cat", record]
    read_by_nobody = "secret words" in subprocess.run(read, capture_output=True, text=True, check=False).stdout
    if not attacked.off:
        assert {path: oct(mode) for path, mode in names.items() if mode & 0o077} == {}
    attacked.judge(success=read_by_nobody, what=names)


@against("cgroups_read_only")
def test_cgroups_of_the_host(attacked: Attacked, bundle: MakeBundle, isolation: Isolation) -> None:
    """Without a cgroup and a cgroup namespace of its own a container sees the host's, and could make some (CVE-2023-25809)."""
    name = f"{isolation.token}-made"
    script = f"for d in /sys/fs/cgroup /sys/fs/cgroup/unified; do mkdir $d/{name} && echo made; done; grep -c . /proc/self/cgroup"
    mount = {**cgroup_mount(), "options": ["nosuid", "noexec", "nodev"]}
    made = bundle(args=["sh", "-c", script], add_mounts=[mount], resources={}, cgroupsPath="", capabilities=ADMIN)
    done = attacked.runtime.call("--cgroup-manager", "disabled", "run", "--bundle", made.path, attacked.runtime.new_id())
    places = [Path(place, name) for place in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")]
    made_on_host = [place for place in places if place.exists()]
    for place in made_on_host:
        place.rmdir()
    attacked.judge(success=bool(made_on_host), what=done)


def shared_options() -> set[str]:
    """Those that all mounts of cgroup2 have."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        kind, _, options = line.rpartition(" - ")[2].split()
        if kind == "cgroup2":
            return set(options.split(",")) - {"rw"}
    return set()


@against("cgroup_options_kept")
def test_options_of_the_host_s_cgroups(attacked: Attacked, bundle: MakeBundle) -> None:
    """A mount in the host's cgroup namespace gives its options to the host's: without `nsdelegate` nothing is delegated any more.

    opencontainers/runc issue 5258.
    """
    before = shared_options()
    if detect().mode != "v2" or "nsdelegate" not in before:
        pytest.skip("needs cgroup version 2 alone, mounted with nsdelegate; the virtual machine has it")
    made = bundle(args=["cat", "/sys/fs/cgroup/cgroup.procs"], add_mounts=[{**cgroup_mount(), "type": "cgroup2"}])
    said = attacked.runtime.run(made).ok().out
    after = shared_options()
    if after != before:
        subprocess.run(["mount", "-o", ",".join(["remount", *sorted(before)]), detect().mounts[""]], check=True)
    attacked.judge(success=after != before, what=after)
    if not attacked.off:
        assert said == "1\n"  # its own cgroup


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
@against("hooks_own_environment")
def test_environment_of_hooks(attacked: Attacked, bundle: MakeBundle, kind: str) -> None:
    """The image says what the container's environment is: a hook of the host's must not load libraries by it (CVE-2025-23266)."""
    made = bundle(env=["PATH=/bin", "LD_PRELOAD=/tmp/of-the-image.so"])
    said = made.path / "said"
    script = f"tr '\\0' '\\n' </proc/self/environ >{said}; echo end >>{said}"
    made.edit(hooks={kind: [{"path": "/bin/sh", "args": ["sh", "-c", script]}]})
    attacked.runtime.run(made).ok()
    assert "end" in said.read_text()
    attacked.judge(success="of-the-image" in said.read_text(), what=said.read_text())
