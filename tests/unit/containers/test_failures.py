"""What a person and a caller read of a failed step: the pointer, the path, the words that callers look for, a hint."""

from __future__ import annotations

from errno import EACCES, EBUSY, EINVAL, EISDIR, ELOOP, ENODEV, ENOENT, ENOEXEC, ENOSYS, ENOTDIR, EPERM, EROFS
from typing import Any

import pytest

from ocirt.containers.failures import explain, from_words, strerror
from ocirt.errors import CODES, Error
from ocirt.kernel import messages
from ocirt.kernel.run import ChildGoneError, StepError
from ocirt.plan import INIT, PARENT, START, step
from tests.unit.plan.plans import cases, executions, find, made, staged_cases

BUILD, HOST, ASKED = cases()["everything"]
PLAN = made(BUILD(), HOST, ASKED)


def failed(operation: str, errno: int, call: str = "", detail: str = "", *arguments: Any) -> Error:
    """The Error for a failure of an operation of the plan with everything."""
    index = find(PLAN, operation, *arguments)[0]
    return explain(StepError(index, errno, call, detail), PLAN, 0)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            failed("program.find", ENOENT, "", "true"),
            '/process/args/0: exec: "true": executable file not found in $PATH',
        ),
        (
            failed("tree.check_root", ENOENT, "stat", "/bundles/b/rootfs"),
            "/root/path: root file system: /bundles/b/rootfs: stat: no such file or directory",
        ),
        (
            failed("tree.check_root", ENOTDIR, "stat", "/bundles/b/rootfs"),
            "/root/path: root file system: /bundles/b/rootfs: stat: not a directory",
        ),
        (
            failed("mount.clone", ENOENT, "open_tree", "/srv/data", "mount/6"),
            "/mounts/6/source: bind mount of: /srv/data: open_tree: no such file or directory",
        ),
        (
            failed("mount.attach", ELOOP, "openat2", "/proc", "mount/0"),
            "/mounts/0: mount at: /proc: openat2: too many levels of symbolic links",
        ),
        (
            failed("mount.attach", EROFS, "openat2", "/data/x", "mount/6"),
            "/mounts/6: mount at: /data: openat2: /data/x: read-only file system",
        ),
        (
            failed("mount.new", EINVAL, "fsconfig", "tmpfs: Bad value for 'size'", "mount/1"),
            "/mounts/1: mount: tmpfs (source tmpfs): fsconfig: tmpfs: Bad value for 'size': invalid argument",
        ),
        (
            failed("mount.new", ENODEV, "fsopen", "", "mount/0"),
            "/mounts/0: mount: proc (source proc): fsopen: no such device (this kernel has no file system 'proc')",
        ),
        (
            failed("mount.change", EPERM, "mount_setattr", "", "mount/6"),
            "/mounts/6/options: set mount options: mount_setattr: operation not permitted",
        ),
        (
            failed("process.chdir", EACCES, "", "/home/there"),
            "/process/cwd: chdir to cwd: /home/there: permission denied",
        ),
        (
            failed("tree.make_directory", EROFS, "", "/home/there"),
            "/process/cwd: make directory: /home/there: read-only file system",
        ),
        (
            failed("device.make", EPERM, "", "/dev/null", "/dev/null"),
            "/linux/devices/0: make device: /dev/null: operation not permitted",
        ),
        (
            failed("tree.sysctl", EINVAL, "", "/proc/sys/kernel/msgmax", "kernel/msgmax"),
            "/linux/sysctl/kernel.msgmax: tree sysctl: kernel/msgmax: /proc/sys/kernel/msgmax: invalid argument",
        ),
        (
            failed("process.raise_limit", EPERM, "prlimit64"),
            "/process/rlimits/1: process raise limit: RLIMIT_NPROC: prlimit64: operation not permitted"
            " (to raise a hard limit above the caller's takes CAP_SYS_RESOURCE)",
        ),
        (
            failed("process.set_capabilities", EPERM, "capset"),
            "/process/capabilities: process set capabilities: capset: operation not permitted"
            " (a capability that the caller does not have cannot be given)",
        ),
        (
            failed("process.clone", EBUSY, "clone3"),
            "/linux/namespaces: unable to start container process: clone: init: clone3: device or resource busy",
        ),
        (
            failed("mount.propagate_host", ENOSYS, "mount_setattr"),
            "/linux/rootfsPropagation: mount propagate host: mount_setattr: function not implemented"
            " (ocirt needs Linux 5.12 or newer)",
        ),
        (
            failed("program.execve", ENOENT, "execve", "/bin/x"),
            '/process/args: exec: "/bin/x": no such file or directory',
        ),
        (
            failed("program.execve", ENOEXEC, "execve", "/bin/x"),
            '/process/args: exec: "/bin/x": exec format error',
        ),
        (
            failed("hooks.run", 0, "", "error running prestart hook #0: exit status 1, output: no", "prestart", 0),
            "/hooks/prestart/0: error running prestart hook #0: exit status 1, output: no",
        ),
        (
            failed("mount.attach", 0, "KeyError", "'mount/0' (line 7)", "mount/0"),
            f"/mounts/0: step {find(PLAN, 'mount.attach', 'mount/0')[0]}, mount.attach: KeyError: 'mount/0' (line 7)"
            " (this is a bug in ocirt)",
        ),
    ],
)
def test_texts(error: Error, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(
    ("name", "errno", "call", "words"),
    [
        ("sh", ENOENT, "", 'exec: "sh": executable file not found in $PATH'),
        ("/bin/sh", ENOENT, "stat", 'exec: "/bin/sh": stat /bin/sh: no such file or directory'),
        ("./sh", ENOENT, "stat", 'exec: "./sh": stat ./sh: no such file or directory'),
        ("/bin/sh", EACCES, "", 'exec: "/bin/sh": permission denied'),
        ("/root/sh", EACCES, "stat", 'exec: "/root/sh": stat /root/sh: permission denied'),
        ("/bin", EISDIR, "", 'exec: "/bin": is a directory'),
        ("/etc/passwd/x", ENOTDIR, "stat", 'exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory'),
    ],
)
def test_programs_that_cannot_be_found(name: str, errno: int, call: str, words: str) -> None:
    """In runc's words, which podman, docker and kubelet look for."""
    plan = [step(INIT, "program.find", name, "/bin", at="/process/args/0")]
    error = explain(StepError(0, errno, call, name), plan, 0)
    assert (error.code, error.subject, error.message) == ("invalid", "/process/args/0", words)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (9, "init was killed"),
        (11, "init ended by signal 11"),
        (1 << 8, "init ended with exit status 1"),
        (0, "init ended with exit status 0"),
        (-1, "the container's init is gone"),
    ],
)
def test_a_child_that_is_gone(status: int, words: str) -> None:
    plan = [step(PARENT, "sync.expect", "ready"), step(PARENT, "user.map", (), (), True, at="/linux/uidMappings")]
    error = explain(ChildGoneError(status), plan, 1)
    assert words in str(error)
    assert error.subject == "/linux/uidMappings"
    assert bool(error.hint) == (status == 9)


@pytest.mark.parametrize("name", [*cases(), *staged_cases(), *executions()])
def test_every_step_of_every_plan_can_be_explained(name: str) -> None:
    if name in executions():
        plan = executions()[name]
    else:
        build, on, asked = (cases() | staged_cases())[name]
        plan = made(build(), on, asked)
    for index, (_, operation, _, pointer, _) in enumerate(plan):
        for errno, call, detail in ((EPERM, "some_call", "some detail"), (ENOSYS, "", ""), (0, "KeyError", "'x' (line 3)")):
            error = explain(StepError(index, errno, call, detail), plan, 0)
            assert error.code in CODES
            assert error.subject == pointer
            assert error.message or operation == "hooks.run"
            assert "\n" not in str(error)
            if errno == EPERM and operation not in ("hooks.run", "program.find"):
                assert "operation not permitted" in str(error)


def test_what_init_writes_to_the_barrier() -> None:
    """Across a process: the record has the words of the steps by then, and no more."""
    build, on, asked = cases()["everything"]
    plan = made(build(), on, asked)
    late = {
        str(index): [operation, [word for word in arguments if isinstance(word, str)], pointer]
        for index, (side, operation, arguments, pointer, _) in enumerate(plan)
        if side == START
    }
    for index, (side, operation, _, pointer, _) in enumerate(plan):
        if side != START:
            continue
        first, second = messages.socket_pair()
        messages.send_failure(first, index, EPERM, "call", "detail")
        error = from_words(messages.failure_of(messages.receive(second)), late, "/x")
        assert error.subject == pointer
        if operation == "program.limit":
            name = plan[index][2][1]
            assert str(error) == f"{pointer}: program limit: {name}: call: detail: operation not permitted"
    unknown = from_words((999, ENOENT, "execve", "/x"), {}, "/y")
    assert str(unknown) == 'exec: "/x": no such file or directory'


def test_small_letters() -> None:
    assert strerror(ENOENT) == "no such file or directory"
    assert strerror(EACCES) == "permission denied"
    assert strerror(EINVAL) == "invalid argument"
