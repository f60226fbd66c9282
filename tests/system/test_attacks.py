"""Attacks on the runtime by images, containers and whoever shares their files: at least one for each of its security rules.

Every attack is made twice: on the runtime as it is, where it has to fail, and with the one rule that is in its way switched off
(tests/support/without.py), where it has to succeed. An attack that would fail anyway shows nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import select
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.attacks import (
    Attacked,
    Victim,
    against,
    drop_mounts,
    exchanging,
    host_directory,
    poison_libraries,
    poison_modules,
)
from tests.support.bundle import NAMESPACES, cgroup_mount, edited
from tests.support.isolation import MS_BIND, MS_SHARED, mount, umount
from tests.support.runtime import Runtime, default_command, wait_for
from tests.support.terminal import ConsoleSocket, Reader
from tests.system.conftest import MakeBundle

pytestmark = pytest.mark.ocirt_only("rules are switched off in ocirt's own code")


@contextlib.contextmanager
def left_open(path: Path) -> Iterator[int]:
    """A descriptor that the caller of the runtime has open."""
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


# 1. Paths in the root


@pytest.mark.parametrize("namespaces", [NAMESPACES, NAMESPACES[:-1]], ids=["", "no mount namespace"])
@pytest.mark.parametrize("kind", ["directory", "file", "cwd", "device"])
@against("resolve_in_root", control="")
def test_link_to_the_host(attacked: Attacked, bundle: MakeBundle, kind: str, namespaces: tuple[str, ...]) -> None:
    """An image in which the way to what is to be made leads over a link to the host (CVE-2019-18837, CVE-2024-45310)."""
    made = bundle(namespaces=namespaces)
    host = host_directory(made)
    (made.rootfs / "link").symlink_to(host)
    mount = {"destination": "/link/made", "type": "tmpfs", "source": "tmpfs"}
    if kind == "directory":
        made.edit(add_mounts=[mount])
    elif kind == "file":
        made.edit(add_mounts=[{**mount, "type": "bind", "source": "config.json", "options": ["bind"]}])
    elif kind == "cwd":
        made.edit(cwd="/link/made")
    else:
        made.edit(devices=[{"path": "/link/made", "type": "c", "major": 1, "minor": 3}])
    done = attacked.runtime.run(made)
    if not attacked.off:
        done.ok()
    with contextlib.suppress(OSError):
        umount(str(host / "made"))  # the careless runtime has mounted in the tests' own namespace
    attacked.judge(success=os.listdir(host) != ["secret"], what=os.listdir(host))


@against("resolve_in_root")
def test_dev_is_a_link_to_the_host(attacked: Attacked, bundle: MakeBundle) -> None:
    """Links are made and removed in /dev (CVE-2026-41579)."""
    made = bundle(edit=lambda config: drop_mounts(config, "/dev"))
    host = host_directory(made)
    (host / "ptmx").write_text("the host's")
    (made.rootfs / "dev").rmdir()
    (made.rootfs / "dev").symlink_to(host)
    attacked.runtime.run(made)
    attacked.judge(success=sorted(os.listdir(host)) != ["ptmx", "secret"] or (host / "ptmx").is_symlink(), what=os.listdir(host))


@against("mount_to_descriptors")
def test_target_that_is_exchanged_while_mounting(attacked: Attacked, bundle: MakeBundle) -> None:
    """Somebody who shares a volume turns the way to a mount's target into a link, back and forth (CVE-2021-30465).

    Once is enough: then what he wrote lies on the host's own directory, and what is mounted from there is what he chose.
    """
    made = bundle(args=["cat", "/loot/secret"])
    host, volume, place = host_directory(made), made.path / "volume", made.path / "place"
    volume.mkdir()
    (volume / "source").symlink_to(host)
    (place / "below" / "source").mkdir(parents=True)
    (made.rootfs / "way" / "below").mkdir(parents=True)
    # With this, the link leads somewhere in the root too.
    (made.rootfs / str(place)[1:] / "below").mkdir(parents=True)
    (made.rootfs / "other").symlink_to(place)
    first = {"destination": "/way/below", "type": "bind", "source": str(volume), "options": ["rbind"]}
    second = {"destination": "/loot", "type": "bind", "source": str(place / "below" / "source"), "options": ["rbind"]}
    made.edit(add_mounts=[*[first] * 10, second])
    outputs = []
    with exchanging(made.rootfs / "way", made.rootfs / "other"):
        for _ in range(60 if attacked.off else 12):
            outputs.append(attacked.runtime.run(made).out)
            if "secret words" in outputs[-1]:
                break
    attacked.judge(success="secret words" in outputs[-1], what=outputs)


@pytest.mark.parametrize("section", ["maskedPaths", "readonlyPaths"])
@against("resolve_in_root")
def test_hidden_path_behind_a_link(attacked: Attacked, bundle: MakeBundle, section: str) -> None:
    """What is hidden would be the host's, or nothing, and the container's own stays in sight."""
    made = bundle(args=["sh", "-c", "cat /data/kept; echo changed >/data/kept; cat /data/kept"], **{section: ["/data/kept"]})
    (made.rootfs / "inside").mkdir()
    (made.rootfs / "inside/kept").write_text("kept\n")
    (made.rootfs / "data").symlink_to("/inside")
    done = attacked.runtime.run(made)
    attacked.judge(success="changed" in done.out or (section == "maskedPaths" and "kept" in done.out), what=done)


@against("resolve_in_root")
def test_console_is_a_link_to_the_host(attacked: Attacked, bundle: MakeBundle, tmp_path: Path) -> None:
    """The file that the terminal is bound to would be made there (class of CVE-2025-52565)."""
    made = bundle(args=["true"], terminal=True)
    host = host_directory(made)
    devpts = next(mount for mount in made.config["mounts"] if mount["destination"] == "/dev/pts")
    drop_mounts(made.config, "/dev")
    made.edit(add_mounts=[devpts])
    (made.rootfs / "dev").rmdir()
    (made.rootfs / "dev").symlink_to(host)
    with ConsoleSocket(tmp_path / "console") as socket:
        done = attacked.runtime.try_create(made, "--console-socket", socket.path)
    attacked.judge(success=(host / "console").exists(), what=done)


# 2. /proc


@pytest.mark.parametrize("place", ["proc", "sys"])
@against("proc_at_its_place")
def test_proc_is_a_link(attacked: Attacked, bundle: MakeBundle, place: str) -> None:
    """The container could put what it likes at /proc afterwards (CVE-2019-19921, CVE-2023-27561), or at /sys (CVE-2023-28642)."""
    made = bundle(args=["sh", "-c", f"rm /{place} && mkdir -p /{place}/self/attr && echo mine > /{place}/self/attr/exec"])
    (made.rootfs / place).rmdir()
    (made.rootfs / "elsewhere").mkdir()
    (made.rootfs / place).symlink_to("elsewhere")
    done = attacked.runtime.run(made)
    attacked.judge(success=(made.rootfs / place / "self/attr/exec").exists(), what=done)


@against("proc_uncovered")
def test_cgroups_over_proc(attacked: Attacked, bundle: MakeBundle) -> None:
    """The way to the cgroup mount leads to /proc: the container has another one, with version 1 to write to (CVE-2019-16884)."""
    made = bundle(args=["sh", "-c", "test -e /proc/version || echo covered"])
    drop_mounts(made.config, "/sys")
    (made.rootfs / "sys/fs").mkdir(parents=True)
    (made.rootfs / "sys/fs/cgroup").symlink_to("/proc")
    made.edit(maskedPaths=[], readonlyPaths=[], add_mounts=[{**cgroup_mount(), "options": ["nosuid", "noexec", "nodev"]}])
    done = attacked.runtime.run(made)
    attacked.judge(success=done.out == "covered\n", what=done)


@against("sysctl_in_real_proc")
def test_kernel_parameter_that_is_a_file_of_the_image(attacked: Attacked, bundle: MakeBundle) -> None:
    """Root's write goes to a file that the image chose, such as another one of the kernel's (CVE-2025-52881)."""
    made = bundle(sysctl={"net.ipv4.ip_forward": "1"}, edit=lambda config: drop_mounts(config, "/proc"))
    chosen = made.rootfs / "chosen"
    chosen.write_text("0")
    (made.rootfs / "proc/sys/net/ipv4").mkdir(parents=True)
    (made.rootfs / "proc/sys/net/ipv4/ip_forward").symlink_to("/chosen")
    attacked.runtime.run(made).ok()
    attacked.judge(success=chosen.read_text() == "1")


@pytest.mark.parametrize("place", ["bind", "link"])
@against("proc_uncovered")
def test_mount_over_proc(attacked: Attacked, bundle: MakeBundle, place: str) -> None:
    """Files in the place of the kernel's own: a volume at /proc itself, or where a link of the image leads (CVE-2019-16884)."""
    made = bundle(args=["cat", "/proc/sys/kernel/fake"])
    volume = made.path / "volume"
    (volume / "sys/kernel").mkdir(parents=True)
    (volume / "sys/kernel/fake").write_text("fake\n")
    if place == "bind":
        drop_mounts(made.config, "/proc")
        made.edit(add_mounts=[{"destination": "/proc", "type": "bind", "source": "volume", "options": ["bind"]}])
    else:
        (made.rootfs / "data").symlink_to("/proc/sys")
        made.edit(add_mounts=[{"destination": "/data", "type": "bind", "source": "volume/sys", "options": ["bind"]}])
    done = attacked.runtime.run(made)
    attacked.judge(success=done.out == "fake\n", what=done)


# 3. The interpreter


@pytest.mark.parametrize("verb", ["run", "exec"])
@pytest.mark.parametrize("off", [False, True], ids=["held", "without launcher"])
def test_interpreter_is_overwritten(runtime: Runtime, bundle: MakeBundle, tmp_path: Path, verb: str, off: bool) -> None:
    """The program of the container is what executes it: it is kept open, and written to once nobody runs it (CVE-2019-5736)."""
    victim = Victim(tmp_path)
    write = (
        "n=0; until (printf overwritten >/proc/self/fd/$0) 2>/said; do "
        "grep -q Read-only /said && break; n=$((n + 1)); test $n -gt 200 && break; sleep 0.02; done; echo done"
    )
    attack = (
        "import os; fd = os.open('/proc/self/exe', os.O_RDONLY); os.set_inheritable(fd, True); "
        f"os.execv('/bin/sh', ['sh', '-c', {write!r}.replace('$0', str(fd))])"
    )
    program = ["/proc/self/exe", "-S", "-c", attack]
    made = bundle(args=program if verb == "run" else ["sleep", "1000"], add_mounts=victim.mounts())
    made.edit(env=[*made.config["process"]["env"], f"PYTHONHOME={victim.prefix}"])
    hostile = victim.unprotected if off else victim.launcher
    try:
        if verb == "run":
            runtime.command = hostile
            output = runtime.output_of(runtime.run_detached(made))
        else:
            container = runtime.run_detached(made)
            runtime.command = hostile
            output = tmp_path / "output"
            runtime.detached("exec", "--detach", container, *program, out=output).ok()
    finally:
        runtime.command = default_command()
    wait_for(lambda: "done" in output.read_text(), "the end of the attack")
    assert victim.overwritten() == off, (made.rootfs / "said").read_text()


# What goes wrong in init leads into the code that is run least.
MISHAPS: dict[str, dict[str, Any]] = {
    "none": {},
    "no program": {"args": ["/no/such/program"]},
    "not executable": {"args": ["/etc/hostname"]},
    "no format": {"args": ["/bin/broken"]},
    "no directory": {"cwd": "/bin/broken"},
    "bad hook": {"hooks": {"startContainer": [{"path": "/no/such/hook"}]}},
    "failing hook": {"hooks": {"startContainer": [{"path": "/bin/false"}]}},
    "not text": {"args": ["/bin/\udcff"], "env": ["A=\udcff"]},
}


@pytest.mark.parametrize("verb", ["run", "exec"])
@against("seal", control="late_import")
def test_modules_of_the_image(attacked: Attacked, bundle: MakeBundle, verb: str) -> None:
    """They stand where the interpreter's own are on the host: whatever init imported, it would run them as root."""
    made = bundle(args=["sleep", "1000"])
    ran = poison_modules(made.rootfs)
    (made.rootfs / "bin/broken").write_text("\0")
    (made.rootfs / "bin/broken").chmod(0o755)
    if verb == "exec":
        container = attacked.runtime.run_detached(made)
        ran.unlink(missing_ok=True)
        attacked.runtime.exec(container, "true").ok()
        attacked.runtime.exec(container, "/no/such/program").failed(rc=255)
        attacked.runtime.exec(container, "/bin/broken").failed(rc=255)
        attacked.runtime.exec(container, "true", flags=["--cwd", "/bin/broken"]).failed(rc=255)
    else:
        config = made.config
        for name, mishap in MISHAPS.items():
            made.write(edited(config, **{"args": ["true"], **mishap}))
            done = attacked.runtime.run(made)
            assert (done.rc == 0) == (name == "none"), done
    attacked.judge(success=ran.exists())


@pytest.mark.parametrize("verb", ["run", "exec"])
@against("own_passwd")
def test_libraries_of_the_image(attacked: Attacked, bundle: MakeBundle, tmp_path: Path, verb: str) -> None:
    """The C library's look-up of a user loads libraries by the image's nsswitch.conf (CVE-2019-14271)."""
    made = bundle(args=["sleep", "1000"])
    ran = poison_libraries(made.rootfs, tmp_path)
    container = attacked.runtime.run_detached(made)
    if verb == "exec":
        ran.unlink(missing_ok=True)
        attacked.runtime.exec(container, "true").ok()
    attacked.judge(success=ran.exists())


@pytest.mark.parametrize("verb", ["run", "exec"])
@against("seal", control="late_import")
def test_files_of_the_image_that_are_opened(attacked: Attacked, bundle: MakeBundle, tmp_path: Path, verb: str) -> None:
    """Inside, init opens the two files that it looks at itself, and no other."""
    made = bundle(args=["true"] if verb == "run" else ["sleep", "1000"])
    notes = tmp_path / "calls"
    before, command = "pivot_root(", attacked.runtime.command
    container = attacked.runtime.new_id() if verb == "run" else attacked.runtime.run_detached(made)
    attacked.runtime.prepare(made, container)
    words: tuple[str | Path, ...] = ("run", "--bundle", made.path, container)
    if verb == "exec":
        before, words = "CLONE_NEWNS", ("exec", container, "true")
    attacked.runtime.command = ["strace", "-f", "-o", str(notes), "-e", "trace=%file,setns,openat2", *command]
    attacked.runtime.call(*words).ok()
    attacked.runtime.command = command
    opened = opened_after(notes.read_text(errors="replace"), before)
    assert "/etc/passwd" in opened
    attacked.judge(success=bool(opened - {"/", "/etc/passwd", "/dev/null"}), what=opened)


def opened_after(calls: str, mark: str) -> set[str]:
    """The paths that a process opens between a call with `mark` in it and execve, from what strace has written."""
    found: set[str] = set()
    inside = ""
    for line in calls.splitlines():
        pid, _, call = line.partition(" ")
        if mark in call and call.lstrip().startswith(("pivot_root(", "setns(")):
            inside = pid
        elif pid == inside and call.lstrip().startswith("execve("):
            return found
        elif pid == inside and (match := re.match(r' *open\w*\([^"]*"([^"]*)"', call)):
            found.add(match[1])
    message = f"no process has done {mark} and execve:\n{calls}"
    raise AssertionError(message)


@against("passwd_without_waiting")
def test_passwd_that_nobody_writes_to(attacked: Attacked, bundle: MakeBundle) -> None:
    """A FIFO in its place would hold the start for ever."""
    made = bundle()
    (made.rootfs / "etc/passwd").unlink()
    os.mkfifo(made.rootfs / "etc/passwd")
    held = False
    try:
        attacked.runtime.run(made, timeout=1.5 if attacked.off else 20).ok()
    except subprocess.TimeoutExpired:
        held = True
    attacked.judge(success=held)


# 4. Descriptors, and the working directory


@pytest.mark.parametrize("verb", ["run", "exec"])
@against("close_all")
def test_directory_that_the_caller_left_open(attacked: Attacked, bundle: MakeBundle, verb: str) -> None:
    """It leads out of the container."""
    made = bundle()
    with left_open(host_directory(made)) as fd:
        read = ["cat", f"/proc/self/fd/{fd}/secret"]
        if verb == "run":
            done = attacked.runtime.run(made.edit(args=read), pass_fds=[fd])
        else:
            container = attacked.runtime.run_detached(made.edit(args=["sleep", "1000"]))
            done = attacked.runtime.exec(container, *read, pass_fds=[fd])
    attacked.judge(success="secret words" in done.out, what=done)


@pytest.mark.parametrize("verb", ["run", "exec", "image"])
@against("close_early,directory_in_root,directory_inside")
def test_directory_that_is_a_descriptor(attacked: Attacked, bundle: MakeBundle, verb: str) -> None:
    """The working directory is one that somebody has open outside (CVE-2024-21626), or a link of the image to such a one."""
    made = bundle(args=["sleep", "1000"])
    container = attacked.runtime.run_detached(made) if verb == "exec" else ""
    outputs = []
    with left_open(host_directory(made)) as fd:
        # The runtime's own are among the first.
        for number in (*range(3, 12), fd):
            cwd = f"/proc/self/fd/{number}"
            if verb == "exec":
                done = attacked.runtime.exec(container, "cat", "secret", flags=["--cwd", cwd], pass_fds=[fd])
            else:
                link = made.rootfs / "here"
                link.unlink(missing_ok=True)
                link.symlink_to(cwd)
                made.edit(args=["cat", "secret"], cwd=cwd if verb == "run" else "/here")
                done = attacked.runtime.run(made, pass_fds=[fd])
            outputs.append(done.out)
    attacked.judge(success="secret words\n" in outputs, what=outputs)


@pytest.mark.parametrize("verb", ["run", "exec"])
@against("close_early")
def test_program_that_is_a_descriptor(attacked: Attacked, bundle: MakeBundle, verb: str) -> None:
    """A program of the host that the caller has open is executed in the container, which could then write to it."""
    made = bundle(args=["sleep", "1000"])
    host = host_directory(made)
    (host / "probe").write_bytes((made.rootfs / "bin/probe").read_bytes())
    (host / "probe").chmod(0o755)
    with left_open(host) as fd:
        program = [f"/proc/self/fd/{fd}/probe", "write", "3"]
        if verb == "run":
            done = attacked.runtime.run(made.edit(args=program), pass_fds=[fd])
        else:
            done = attacked.runtime.exec(attacked.runtime.run_detached(made), *program, pass_fds=[fd])
    attacked.judge(success=done.rc == 0, what=done)


# 5. Masks and console


@against("real_null")
def test_null_is_a_link(attacked: Attacked, bundle: MakeBundle) -> None:
    """What hides a file would be a file of the image's choice, writable (CVE-2025-31133)."""
    made = bundle(args=["cat", "/hidden"], edit=lambda config: drop_mounts(config, "/dev"), maskedPaths=["/hidden"])
    (made.rootfs / "hidden").write_text("hidden\n")
    (made.rootfs / "chosen").write_text("chosen\n")
    (made.rootfs / "dev/null").symlink_to("/chosen")
    done = attacked.runtime.run(made).ok()
    assert "hidden" not in done.out
    attacked.judge(success=done.out == "chosen\n", what=done)


@pytest.fixture
def null(tmp_path: Path) -> Iterator[Path]:
    """A /dev/null for the runtime that is not the machine's: what becomes of it hurts nobody."""
    place = tmp_path / "devices"
    place.mkdir()
    mount("tmpfs", str(place), "tmpfs", 0, "mode=755")
    try:
        os.mknod(place / "null", 0o020666, os.makedev(1, 3))
        (place / "null").chmod(0o666)
        mount(str(place / "null"), "/dev/null", "none", MS_BIND)
        try:
            yield place / "null"
        finally:
            umount("/dev/null")
    finally:
        umount(str(place))


@against("null_read_only")
def test_null_that_hides_is_changed(attacked: Attacked, bundle: MakeBundle, null: Path) -> None:
    """Root of the container changes the mode of what hides a file: it must not be that of the host's /dev/null."""
    made = bundle(args=["chmod", "600", "/hidden"], maskedPaths=["/hidden"])
    (made.rootfs / "hidden").write_text("hidden\n")
    done = attacked.runtime.run(made)
    attacked.judge(success=null.stat().st_mode & 0o777 == 0o600, what=done)


@pytest.mark.parametrize("namespaces", [NAMESPACES, NAMESPACES[:-1]], ids=["", "no mount namespace"])
@against("null_apart")
def test_null_that_hides_is_hidden(attacked: Attacked, bundle: MakeBundle, null: Path, namespaces: tuple[str, ...]) -> None:
    """What is mounted over what hides a file must not be mounted over the host's /dev/null as well."""
    mount("none", "/dev/null", "none", MS_SHARED)
    before = Path("/proc/self/mountinfo").read_text().count(" /dev/null ")
    made = bundle(args=["sleep", "1000"], namespaces=namespaces, rootfsPropagation="rshared", maskedPaths=["/etc/passwd"] * 2)
    container = attacked.runtime.run_detached(made)
    after = Path("/proc/self/mountinfo").read_text().count(" /dev/null ")
    attacked.runtime.delete(container, "--force").ok()
    while Path("/proc/self/mountinfo").read_text().count(" /dev/null ") > before:
        umount("/dev/null")
    attacked.judge(success=after != before, what=null)


@pytest.mark.parametrize("verb", ["run", "exec"])
@against("null_reopened")
def test_null_that_is_a_stream_is_changed(attacked: Attacked, bundle: MakeBundle, null: Path, verb: str) -> None:
    """The host's /dev/null as a stream, in a container that has none to put in its place."""
    change = ["chmod", "600", "/proc/self/fd/0"]
    if verb == "run":
        made = bundle(args=change, edit=lambda config: drop_mounts(config, "/dev"))
        (made.rootfs / "dev/null").write_text("")
        done = attacked.runtime.run(made)
    else:
        container = attacked.runtime.run_detached(bundle(args=["sh", "-c", "rm /dev/null; : >/dev/null; echo ready; sleep 1000"]))
        attacked.runtime.wait_output(container, "ready")
        done = attacked.runtime.exec(container, *change)
    attacked.judge(success=null.stat().st_mode & 0o777 == 0o600, what=done)


@against("real_multiplexer")
def test_multiplexer_is_no_device(attacked: Attacked, bundle: MakeBundle, tmp_path: Path) -> None:
    """Nothing at /dev/pts/ptmx but a devpts' own is opened: here a FIFO, whose other end sees it."""
    made = bundle(args=["true"], terminal=True)
    (made.path / "pts").mkdir()
    fifo = made.path / "pts/ptmx"
    os.mkfifo(fifo)
    drop_mounts(made.config, "/dev/pts")
    made.edit(add_mounts=[{"destination": "/dev/pts", "type": "bind", "source": "pts", "options": ["bind"]}])
    fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with ConsoleSocket(tmp_path / "console") as socket:
            done = attacked.runtime.try_create(made, "--console-socket", socket.path).failed("ptmx|console", rc=1)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        attacked.judge(success=bool(poll.poll(0)), what=done)  # POLLHUP: a writer has come and gone
    finally:
        os.close(fd)


@against("console_by_descriptor")
def test_terminal_is_a_link(attacked: Attacked, bundle: MakeBundle, tmp_path: Path) -> None:
    """The name of the terminal in /dev/pts is a link to what the image wants to have bound (CVE-2025-52565)."""
    script = "if test -c /dev/console; then echo terminal; else cat /dev/console; fi; echo end"
    made = bundle(args=["sh", "-c", script], terminal=True)
    (made.rootfs / "chosen").write_text("chosen\n")
    (made.path / "pts").mkdir()
    (made.path / "pts/ptmx").symlink_to("/real/ptmx")
    (made.path / "pts/0").symlink_to("/chosen")
    devpts = next(mount for mount in made.config["mounts"] if mount["destination"] == "/dev/pts")
    drop_mounts(made.config, "/dev/pts")
    bound = {"destination": "/dev/pts", "type": "bind", "source": "pts", "options": ["bind"]}
    made.edit(add_mounts=[{**devpts, "destination": "/real"}, bound])
    with ConsoleSocket(tmp_path / "console") as socket:
        container = attacked.runtime.create(made, "--console-socket", socket.path)
        _, fds = socket.receive()
        reader = Reader(fds[0])
        attacked.runtime.start(container).ok()
        said = reader.expect("end")
    attacked.judge(success="chosen" in said, what=said)


# 6. Joining, and the filter


@against("protect")
def test_init_at_the_barrier(attacked: Attacked, bundle: MakeBundle) -> None:
    """A process of the same user looks into the init that waits for `start`: it has the caller's memory and environment."""
    env = {**os.environ, "CALLER": "secret words"}
    container = attacked.runtime.create(bundle(args=["sleep", "1000"]), env=env)
    done = attacked.runtime.exec(container, "sh", "-c", "grep -c 'secret words' /proc/1/environ; ls /proc/1/fd/")
    attacked.judge(success=done.out.startswith("1\n"), what=done)


@against("protect", control="slow")
def test_process_that_joins(attacked: Attacked, bundle: MakeBundle) -> None:
    """The container waits for somebody to come in, and looks at what he brings from outside (CVE-2016-9962)."""
    script = "until grep -l 'secret words' /proc/[0-9]*/environ 2>/dev/null; do :; done; sleep 1000"
    container = attacked.runtime.run_detached(bundle(args=["sh", "-c", script]))
    for _ in range(1 if attacked.off else 3):
        attacked.runtime.exec(container, "true", env={**os.environ, "CALLER": "secret words"}).ok()
    said = attacked.runtime.output_of(container).read_text()
    attacked.judge(success="/environ" in said, what=said)


@against("same_target", control="recycled")
def test_number_of_another_process(attacked: Attacked, bundle: MakeBundle) -> None:
    """The container's init ends, and somebody else gets its number: `exec` must not join him."""
    made = bundle(args=["sleep", "1000"])
    secret = host_directory(made) / "secret"
    container = attacked.runtime.run_detached(made)
    time.sleep(2 / os.sysconf("SC_CLK_TCK"))  # no two processes get one number within a tick, in which start times are counted
    with subprocess.Popen(["sleep", "1000"]) as other:
        try:
            done = attacked.runtime.exec(container, "cat", secret, env={**os.environ, "RECYCLED": str(other.pid)})
        finally:
            other.kill()
    attacked.judge(success=done.out == "secret words\n", what=done)


PRETENDED = ["setresuid", "setresuid32", "setresgid", "setresgid32", "setgroups", "setgroups32", "capset"]


@pytest.mark.parametrize("verb", ["run", "exec"])
@against("filter_last")
def test_filter_that_only_pretends(attacked: Attacked, bundle: MakeBundle, verb: str) -> None:
    """Calls that give up privileges return 0 and do nothing: a filter that is there too early leaves root to the program."""
    rule = {"names": PRETENDED, "action": "SCMP_ACT_ERRNO", "errnoRet": 0}
    made = bundle(
        args=["/bin/probe"] if verb == "run" else ["sleep", "1000"],
        user={"uid": 1000, "gid": 1000},
        seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]},
    )
    if verb == "run":
        seen = attacked.runtime.run(made).ok().json()
    else:
        seen = attacked.runtime.exec(attacked.runtime.run_detached(made), "/bin/probe").ok().json()
    assert seen["seccomp"] == 2
    attacked.judge(success=seen["uid"] == [0, 0, 0], what=seen["uid"])


@pytest.mark.parametrize("fault", ["owner", "mode", "link", "contents", "directory"])
@against("doubt_cache")
def test_poisoned_cache(attacked: Attacked, bundle: MakeBundle, tmp_path: Path, fault: str) -> None:
    """A translated filter that allows everything, where somebody else could have put it."""
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    made = bundle(args=["sh", "-c", "mkdir /made && echo made"], seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    attacked.runtime.run(made).failed("not permitted")
    (entry,) = (attacked.runtime.root / "@seccomp").iterdir()
    data = entry.read_bytes()
    head = data[: -32 - 8 * ((len(data) - 32 - HEAD) // 8)]
    harmless = head + struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)  # BPF_RET: SECCOMP_RET_ALLOW
    digest = hashlib.blake2b(harmless, digest_size=32).digest()
    entry.write_bytes(harmless + (bytes(32) if fault == "contents" else digest))
    if fault == "owner":
        os.chown(entry, 1000, 1000)
    elif fault == "mode":
        entry.chmod(0o666)
    elif fault == "link":
        entry.rename(tmp_path / "entry")
        entry.symlink_to(tmp_path / "entry")
    elif fault == "directory":
        entry.parent.chmod(0o777)
    done = attacked.runtime.run(made)
    attacked.judge(success=done.out == "made\n", what=done)


HEAD = 16 + 32 + 4 + 4  # what stands before the program: magic, key, flags, listener
