"""Containers that every client of docker's command line can run, and how what came of two of them is compared."""

from __future__ import annotations

import re

from tests.support.runtime import Result

# What `run` gets: its flags, and the command in the container.
Runs = dict[str, tuple[list[str], list[str]]]

RUNS: Runs = {
    "output": ([], ["sh", "-c", "echo out; echo err >&2"]),
    "exit-code": ([], ["sh", "-c", "exit 42"]),
    "killed": ([], ["sh", "-c", "sh -c 'kill -KILL $$'; exit $?"]),
    "environment": (["--env", "A=b c", "--env", "HOSTNAME=here"], ["sh", "-c", "env | sort"]),
    "directory": (["--workdir", "/tmp"], ["pwd"]),
    "capabilities": ([], ["grep", "-E", "^(Cap|NoNewPrivs|Seccomp:)", "/proc/self/status"]),
    "drop-all": (["--cap-drop", "all"], ["grep", "^Cap", "/proc/self/status"]),
    "drop-and-add": (
        ["--cap-drop", "all", "--cap-add", "net_admin", "--cap-add", "chown"],
        ["grep", "^Cap", "/proc/self/status"],
    ),
    "no-new-privileges": (["--security-opt", "no-new-privileges"], ["grep", "^NoNew", "/proc/self/status"]),
    "no-seccomp": (["--security-opt", "seccomp=unconfined"], ["grep", "^Seccomp:", "/proc/self/status"]),
    "user": (["--user", "1000:29"], ["id"]),
    "user-by-name": (["--user", "alice"], ["id"]),
    "user-capabilities": (["--user", "alice", "--cap-add", "chown"], ["grep", "^Cap", "/proc/self/status"]),
    # docker asks for one of them twice; runc before 1.2 did so once.
    "groups": (["--user", "1000", "--group-add", "29", "--group-add", "4242"], ["sh", "-c", "id -G | tr ' ' '\\n' | sort -un"]),
    "home": (["--user", "alice"], ["sh", "-c", "echo $HOME"]),
    "read-only": (["--read-only", "--tmpfs", "/tmp"], ["sh", "-c", "touch /file; touch /tmp/file && echo written"]),
    "tmpfs": (["--tmpfs", "/scratch:size=64k,mode=1770"], ["sh", "-c", "grep ' /scratch ' /proc/mounts; stat -c %a /scratch"]),
    "shm-size": (["--shm-size", "1m"], ["sh", "-c", "df -k /dev/shm | tail -n 1 | grep -o 1024"]),
    "hostname": (["--hostname", "there"], ["sh", "-c", "hostname; cat /etc/hostname"]),
    "sysctl": (
        ["--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=4321"],
        ["cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/msgmax"],
    ),
    "memory": (
        ["--memory", "64m"],
        ["sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max"],
    ),
    "pids": (["--pids-limit", "37"], ["sh", "-c", "cat /sys/fs/cgroup/pids/pids.max || cat /sys/fs/cgroup/pids.max"]),
    "cpus": (["--cpus", "0.5"], ["sh", "-c", "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us || cat /sys/fs/cgroup/cpu.max"]),
    "cpu-shares": (["--cpu-shares", "512"], ["sh", "-c", "cat /sys/fs/cgroup/cpu/cpu.shares || cat /sys/fs/cgroup/cpu.weight"]),
    "cpuset": (["--cpuset-cpus", "0"], ["nproc"]),
    "fork-limit": (["--pids-limit", "3"], ["sh", "-c", "true & true & true & true & true & true & wait"]),
    "rlimits": (["--ulimit", "nofile=64:128", "--ulimit", "core=0:0"], ["sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c"]),
    "oom-score": (["--oom-score-adj", "77"], ["cat", "/proc/self/oom_score_adj"]),
    "device": (["--device", "/dev/null:/dev/nil:rw"], ["sh", "-c", "ls -l /dev/nil | cut -c 1; echo x >/dev/nil"]),
    "devices": ([], ["ls", "/dev"]),
    "no-device": ([], ["sh", "-c", "mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg"]),
    "masked": ([], ["sh", "-c", "cat /proc/kcore | wc -c; ls /proc/acpi /sys/firmware; echo 1 >/proc/sysrq-trigger"]),
    "mounts": ([], ["sh", "-c", "cut -d ' ' -f 2-4 /proc/mounts | grep -v -E '^(/ |/proc/|/sys/)' | sort"]),
    "host-ipc": (["--ipc", "host"], ["true"]),
    "host-pid": (["--pid", "host"], ["sh", "-c", "test $$ -gt 1"]),
    "host-uts": (["--uts", "host"], ["hostname"]),
    "host-network": (["--network", "host"], ["sh", "-c", "tail -n +3 /proc/net/dev | wc -l"]),
    "cgroup-namespace": (["--cgroupns", "private"], ["sh", "-c", "cut -d : -f 3 /proc/self/cgroup | sort -u"]),
    "stdin": (["--interactive"], ["sh", "-c", "read line; echo got $line"]),
    "init": (["--init"], ["sh", "-c", "cat /proc/1/comm; exit 3"]),
    "stop-signal": (["--stop-signal", "USR1"], ["true"]),
    "apparmor": (["--security-opt", "apparmor=unconfined"], ["true"]),
    "not-found": ([], ["/no/such/program"]),
    "not-in-path": ([], ["no-such-program"]),
    "not-executable": ([], ["/etc/passwd"]),
    "directory-as-program": ([], ["/etc"]),
    "bad-user": (["--user", "nobody-there"], ["true"]),
    "clients-own-error": (["--no-such-flag"], ["true"]),
}

CODES = {
    "exit-code": 42,
    "killed": 137,
    "init": 3,
    "not-found": 127,
    "not-in-path": 127,
    "not-executable": 126,
    "directory-as-program": 126,
    "clients-own-error": 125,
}


def comparable(result: Result) -> tuple[int, str, str]:
    """What must not depend on the runtime: ids are blanked, of what the runtime says only whom the client blames stays."""
    errors = re.sub(r"[0-9a-f]{64}", "ID", result.err)
    if result.rc in (125, 126, 127):
        errors = "" if "rror: " in errors or "Error response from daemon" in errors else errors
    return result.rc, re.sub(r"[0-9a-f]{12,64}", "ID", result.out), errors
