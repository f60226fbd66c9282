"""What a container's processes have from nobody: a caller with the oddest treatment, and what is written down instead."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ocirt.plan.baseline import LIMITS
from tests.support.bundle import Bundle
from tests.support.runtime import TIMEOUT, Runtime
from tests.system.conftest import MakeBundle
from tests.system.test_namespaces import with_user_namespace
from tests.system.test_overlay_root import DRIVER

pytestmark = pytest.mark.ocirt_only("the library's own")

UNLIMITED = (1 << 64) - 1
LINES = {
    "RLIMIT_CPU": "Max cpu time",
    "RLIMIT_FSIZE": "Max file size",
    "RLIMIT_DATA": "Max data size",
    "RLIMIT_STACK": "Max stack size",
    "RLIMIT_CORE": "Max core file size",
    "RLIMIT_RSS": "Max resident set",
    "RLIMIT_NPROC": "Max processes",
    "RLIMIT_NOFILE": "Max open files",
    "RLIMIT_MEMLOCK": "Max locked memory",
    "RLIMIT_AS": "Max address space",
    "RLIMIT_LOCKS": "Max file locks",
    "RLIMIT_SIGPENDING": "Max pending signals",
    "RLIMIT_MSGQUEUE": "Max msgqueue size",
    "RLIMIT_NICE": "Max nice priority",
    "RLIMIT_RTPRIO": "Max realtime priority",
    "RLIMIT_RTTIME": "Max realtime timeout",
}
FILES = ("limits", "status", "oom_score_adj", "personality", "coredump_filter", "stat", "timerslack_ns")
SCRIPT = f"umask; for name in {' '.join(FILES)}; do echo == $name; cat /proc/self/$name; done"
PR_SET_TIMERSLACK, PR_SET_THP_DISABLE = 29, 41


def limits(text: str) -> dict[str, tuple[int, int]]:
    """/proc/PID/limits."""
    found = {}
    for name, line in LINES.items():
        words = next(each for each in text.splitlines() if each.startswith(line + " ")).removeprefix(line).split()[:2]
        soft, hard = (UNLIMITED if word == "unlimited" else int(word) for word in words)
        found[name] = (soft, hard)
    return found


def field(status: str, name: str) -> str:
    return next(line.split()[1] for line in status.splitlines() if line.startswith(name + ":"))


_CAP_SYS_RESOURCE = 24
MAY_RAISE = bool(int(field(Path("/proc/self/status").read_text(), "CapEff"), 16) >> _CAP_SYS_RESOURCE & 1)


def expected() -> dict[str, tuple[int, int]]:
    """The baseline, as far as this machine's root can raise limits."""
    found = {}
    for name, (soft, hard) in LIMITS.items():
        most = UNLIMITED if MAY_RAISE else limits(Path("/proc/self/limits").read_text())[name][1]
        found[name] = (min(soft, most), min(hard, most))
    return found


def become_odd() -> None:
    """What no daemon looks like, but one of these each."""
    libc = ctypes.CDLL(None)
    odd = (
        (resource.RLIMIT_NOFILE, 300, 400),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_STACK, 1 << 20, 2 << 20),
        (resource.RLIMIT_MEMLOCK, 0, 4096),
        (resource.RLIMIT_FSIZE, 1 << 30, 1 << 30),
        (resource.RLIMIT_CPU, 1000, 2000),
        (resource.RLIMIT_NPROC, 5000, 5000),
        (resource.RLIMIT_MSGQUEUE, 1, 2),
        (resource.RLIMIT_SIGPENDING, 7, 8),
        (resource.RLIMIT_NICE, 5, 6),
        (resource.RLIMIT_RTPRIO, 3, 4),
        (resource.RLIMIT_DATA, 1 << 34, 1 << 34),
    )
    for number, soft, hard in odd:
        most = resource.getrlimit(number)[1]
        if most == resource.RLIM_INFINITY or soft <= most:
            # Whoever may not raise them again lowers none: then hard limits are the caller's.
            resource.setrlimit(number, (soft, hard if MAY_RAISE else most))
    os.umask(0o077)
    for number in (signal.SIGPIPE, signal.SIGUSR1, signal.SIGHUP, signal.SIGCHLD, signal.SIGRTMIN):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2, signal.SIGCHLD, signal.SIGRTMAX})
    os.nice(7)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    Path("/proc/self/oom_score_adj").write_text("345")
    Path("/proc/self/coredump_filter").write_text("0x7f")
    libc.personality(0x0040000)  # ADDR_NO_RANDOMIZE
    libc.prctl(PR_SET_TIMERSLACK, 123, 0, 0, 0)
    libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)


def odd(runtime: Runtime, *args: Any) -> str:
    """The output of a command whose caller is odd."""
    done = subprocess.run(
        runtime.argv(*args),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        preexec_fn=become_odd,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def seen(text: str) -> dict[str, str]:
    """What the script says, by the file's name; the mask as "umask"."""
    first, *rest = text.split("== ")
    return {"umask": first.strip()} | {name: words for name, _, words in (part.partition("\n") for part in rest)}


@pytest.fixture(params=["run", "exec", "user namespace"])
def process(request: pytest.FixtureRequest, runtime: Runtime, bundle: MakeBundle, place: Path) -> Any:
    """Runs the script as a container's process, asked for by an odd caller; edits are the container's."""
    (place / "given.json").write_text(json.dumps({"baseline": True}))
    runtime.command = [sys.executable, "-I", str(DRIVER), str(place / "given.json")]

    def run(**edits: Any) -> dict[str, str]:
        made: Bundle = bundle(**{"rlimits": None, **edits})
        if request.param == "user namespace":
            with_user_namespace(made)
        if request.param == "exec":
            container = runtime.run_detached(made.edit(args=["sleep", "1000"]))
            text = odd(runtime, "exec", container, "/bin/sh", "-c", SCRIPT)
            runtime.delete(container, "--force").ok()
            return seen(text)
        container = runtime.new_id()
        runtime.prepare(made.edit(args=["/bin/sh", "-c", SCRIPT]), container)
        return seen(odd(runtime, "run", "--bundle", made.path, container))

    return run


def test_nothing_is_the_callers(process: Any) -> None:
    """Limits, mask, signals, scheduling, the score of the OOM killer, personality."""
    found = process()
    assert limits(found["limits"]) == expected()
    assert found["umask"] == "0022"
    for name in ("SigBlk", "SigIgn", "SigPnd", "SigCgt"):
        assert int(field(found["status"], name), 16) == 0, name
    assert found["oom_score_adj"].strip() == "0"
    assert int(found["personality"], 16) == 0
    assert int(found["coredump_filter"], 16) == 0x33
    fields = found["stat"].rpartition(")")[2].split()
    assert (fields[16], fields[38]) == ("0", "0")  # nice, policy: proc_pid_stat(5)
    assert found["timerslack_ns"].strip() == "50000"
    assert field(found["status"], "THP_enabled") == "1"
    assert field(found["status"], "Cpus_allowed_list") == Path("/sys/devices/system/cpu/online").read_text().strip()


def test_what_config_json_says_counts(process: Any) -> None:
    """Beside it the rest is from the baseline."""
    wanted = [{"type": "RLIMIT_NOFILE", "soft": 500, "hard": 600}, {"type": "RLIMIT_CORE", "soft": 1, "hard": 2}]
    found = process(
        rlimits=wanted,
        oomScoreAdj=77,
        user={"uid": 0, "gid": 0, "umask": 0o027},
        process={"scheduler": {"policy": "SCHED_IDLE"}},
    )
    assert limits(found["limits"]) == expected() | {"RLIMIT_NOFILE": (500, 600), "RLIMIT_CORE": (1, 2)}
    assert (found["oom_score_adj"].strip(), found["umask"]) == ("77", "0027")
    assert found["stat"].rpartition(")")[2].split()[38] == "5"


def test_without_it_limits_are_the_callers(runtime: Runtime, bundle: MakeBundle) -> None:
    """As of any other runtime's command."""
    container = runtime.new_id()
    made = bundle(args=["/bin/sh", "-c", SCRIPT], rlimits=None, oomScoreAdj=None)
    runtime.prepare(made, container)
    found = seen(odd(runtime, "run", "--bundle", made.path, container))
    assert limits(found["limits"])["RLIMIT_NOFILE"][0] == 300
    assert found["oom_score_adj"].strip() == "345"
    assert found["umask"] == "0022"
    assert int(field(found["status"], "SigIgn"), 16) == int(field(found["status"], "SigBlk"), 16) == 0
