"""Making processes, and what init does to itself."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # (typeshed has none; `signal` loads enum)
import posix
from errno import ESRCH

from ocirt.kernel import constants as k
from ocirt.kernel import messages, process
from ocirt.kernel.ffi import CallError, syscall
from ocirt.kernel.run import Run
from ocirt.kernel.steps import sync
from ocirt.paths import encode, write_text

_O_PATH = 0o10000000
_LAST_CAPABILITY = 40  # CAP_CHECKPOINT_RESTORE; what a newer kernel has beyond it is found by trying
_MOST_CAPABILITIES = 64
_ALL_CPUS = b"\xff" * 8192  # more than any kernel has: it takes what it knows


def clone(run: Run, side: str, flags: int) -> None:
    """Make the child that walks `side`, in the unified cgroup if one is open."""
    pid = process.clone3(flags, run.cgroup_fd)
    if pid == 0:
        _become_child(run, side)
    if side == "stage":
        run.stage_pid = pid
    else:
        run.pid = pid
    # Ours would keep the socket open beyond the child's end.
    posix.close(run.peer)
    run.peer = -1
    for fd in run.join_fds:
        posix.close(fd)
    run.join_fds.clear()


def clone_beside(run: Run, side: str, target: int) -> None:
    """`clone` into the cgroup that process `target` is in now."""
    from ocirt.cgroups import unified  # noqa: PLC0415  (the parent's, and rare)

    posix.close(run.cgroup_fd)
    run.cgroup_fd = posix.open(unified.of_process(target), posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    clone(run, side, 0)


def _become_child(run: Run, side: str) -> None:
    run.sync, run.peer = run.peer, run.sync
    run.pid = run.stage_pid = 0
    run.child(side)


def clone_sibling(run: Run, side: str, flags: int) -> None:
    """Make a child of our parent, which walks `side`, and tell the parent its pid."""
    # The number is the one in our own pid namespace, which is the parent's.
    pid = process.clone3_sibling(flags)
    if pid == 0:
        if run.trace is not None:
            run.trace.forget()  # the stage writes it down
        run.become(side)
    messages.send(run.sync, b"p", b"%d" % pid)


def meet(run: Run) -> None:
    """Wait for the stage's end, and learn init's pid from what it has left."""
    # Its end first: init has the socket too, so a stage that is killed after the clone would never be missed.
    status = posix.waitpid(run.stage_pid, 0)[1]
    run.stage_pid = 0
    sync.receive_pid(run, status)


def open_target(run: Run, pid: int, start_time: int) -> None:
    """Hold the container's init; if its number means another process by now, there is no such container any more."""
    from ocirt.state import process_start_time  # noqa: PLC0415  (the parent's)

    run.fds["target"] = posix.pidfd_open(pid)
    if process_start_time(pid) != start_time:
        raise CallError(ESRCH, "pidfd_open", "the container's init has ended")


def open_root(run: Run) -> None:
    """The root of a process that has joined a container."""
    run.root_fd = posix.open("/", _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)


def open_target_root(run: Run, pid: int, start_time: int) -> None:
    """Hold the root directory of the container's init, for who cannot join a mount namespace of the container's."""
    from ocirt.state import process_start_time  # noqa: PLC0415  (the parent's)

    run.fds["target/root"] = posix.open(f"/proc/{pid}/root", _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    # Looked at after the open: then it was no other process's before.
    if process_start_time(pid) != start_time:
        raise CallError(ESRCH, "open", "the container's init has ended")


def change_root(run: Run, slot: str) -> None:
    """Make a directory that is open the root, and go there (chroot(2)): what is open of the host's is the only way out."""
    posix.fchdir(run.fds[slot])
    posix.chroot(".")
    posix.chdir("/")


def protect(run: Run) -> None:
    """Keep others from looking into this process, before it enters namespaces whose owners may (CVE-2016-9962)."""
    del run
    process.prctl(k.PR_SET_DUMPABLE, 0)


def close_descriptors(run: Run, fds: int) -> None:
    """Close what led to the host, all but the way to the parent, the barrier, and what the program gets."""
    ends = [run.sync, run.root_fd, run.start_fd, run.phase_fd, run.fds.get("barrier/started", -1)]
    if run.trace is not None:
        ends.append(run.trace.fd)
    ends += [run.fds[slot] for slot in ("waiter", "listener", "program") if slot in run.fds]
    process.close_all_but(ends, 3 + fds)


def die_with_parent(run: Run) -> None:
    """Until the container is committed, the runtime's death is init's."""
    del run
    process.prctl(k.PR_SET_PDEATHSIG, _signal.SIGKILL)


def outlive_parent(run: Run) -> None:
    """No longer die with the parent. Until it commits, its death shows as the end of the socket, for which init waits next."""
    del run
    process.prctl(k.PR_SET_PDEATHSIG, 0)


def reset_affinity(run: Run) -> None:
    """May run on all CPUs that the cgroup allows, whatever the caller was bound to (sched_setaffinity(2))."""
    del run
    syscall("sched_setaffinity", 0, len(_ALL_CPUS), _ALL_CPUS)


def new_session(run: Run) -> None:
    """setsid(2), and files get exactly the modes that steps give them."""
    del run
    posix.setsid()
    posix.umask(0)


def join_keyring(run: Run, name: str) -> None:
    """A session keyring of the container's own, which its processes may search (session-keyring(7))."""
    del run
    ring = syscall("keyctl", k.KEYCTL_JOIN_SESSION_KEYRING, encode(name))
    try:
        syscall("keyctl", k.KEYCTL_SETPERM, ring, 0x3F3F0000 | 0x00080000)
    except CallError:
        pass  # made by somebody else


def set_oom_score(run: Run, score: int) -> None:
    """Write /proc/PID/oom_score_adj of the child."""
    _write_oom_score(f"/proc/{run.pid}/oom_score_adj", score)


def set_own_oom_score(run: Run, score: int) -> None:
    """Write /proc/self/oom_score_adj."""
    del run
    _write_oom_score("/proc/self/oom_score_adj", score)


def _write_oom_score(path: str, score: int) -> None:
    try:
        write_text(path, str(score))
    except OSError as err:
        err.filename = path
        raise


def raise_limit(run: Run, number: int, resource: str, hard: int) -> None:
    """Raise init's hard limit where config.json wants more than it has from us; init lowers limits itself."""
    del resource
    # Ours are looked at: another user's may not be without CAP_SYS_RESOURCE, and init has become one by now.
    soft, had = process.get_rlimit(0, number)
    if hard > had:
        process.set_rlimit(run.pid, number, soft, hard)


def set_host_name(run: Run, name: str) -> None:
    """sethostname(2)."""
    del run
    data = encode(name)
    syscall("sethostname", data, len(data))


def set_domain_name(run: Run, name: str) -> None:
    """setdomainname(2)."""
    del run
    data = encode(name)
    syscall("setdomainname", data, len(data))


def umask(run: Run, mask: int) -> None:
    """The mask that the program starts with."""
    del run
    posix.umask(mask)


def chdir(run: Run, path: str) -> None:
    """Enter the working directory."""
    del run
    posix.chdir(path)


def check_directory(run: Run) -> None:
    """Make sure that the working directory is inside the root (CVE-2024-21626): one that is not has no path."""
    del run
    # The system call says "(unreachable)" where the C library says ENOENT; either way it does not begin with a slash.
    if not posix.getcwd().startswith("/"):
        raise CallError(2, "getcwd")


def limit_bounding_set(run: Run, keep: int) -> None:
    """Drop from the bounding set what is not in `keep`."""
    del run
    for number in range(_MOST_CAPABILITIES):
        if keep >> number & 1:
            continue
        try:
            process.prctl(k.PR_CAPBSET_DROP, number)
        except CallError:
            if number > _LAST_CAPABILITY:
                return  # the kernel knows no more
            raise


def set_capabilities(run: Run, effective: int, permitted: int, inheritable: int) -> None:
    """capset(2)."""
    del run
    process.set_capabilities(effective, permitted, inheritable)


def raise_ambient(run: Run, mask: int) -> None:
    """Make the ambient set `mask`."""
    del run
    process.raise_ambient(mask)


def no_new_privileges(run: Run) -> None:
    """No execve(2) gives privileges from here on."""
    del run
    process.prctl(k.PR_SET_NO_NEW_PRIVS, 1)
