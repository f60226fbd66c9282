"""Run a shell command as root in a virtual machine with cgroup version 2 alone, on a machine that has something else.

    python tests/vm/run.py [--systemd] [--seconds N] [--memory MiB] [--disk FILE] [--cut-at WORD] COMMAND

The machine's root is this machine's own, read-only below a tmpfs, so the command finds everything at its path and changes
nothing. Its directory, output and exit code are this command's; 124: it ran too long, 125: the virtual machine gave no exit
code. With --disk /dev/vda is this file and stays as it is left, else it is blank; with --cut-at the power fails as soon as the
command writes this word (137). The kernel is Debian's for clouds, fetched once into build/vm. QEMU emulates the processor (TCG):
slow, but it works inside of other machines. Needs root, qemu-system-x86 (with virtiofsd), busybox-static and kmod.
"""

from __future__ import annotations

import argparse
import contextlib
import lzma
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "vm"
GUEST = HERE / "guest"
PACKAGE = "linux-image-cloud-amd64"
MODULES = ("virtio_pci", "virtio_console", "virtio_blk", "crc32c_generic", "ext4", "quota_v2", "virtiofs", "overlay")
APPLETS = ("sh", "mount", "insmod", "mkdir", "switch_root", "cat", "cp", "ln", "mknod", "poweroff", "uname")
SCRATCH = 512 << 20  # bytes of the blank disk /dev/vda


class Failure(Exception):
    """The virtual machine cannot be had, or gave no answer."""


def kernel() -> tuple[Path, str]:
    """The directory of an unpacked kernel package, and its version; fetched at the first call."""
    place = BUILD / "kernel"
    if not place.exists():
        with tempfile.TemporaryDirectory() as text:
            work = Path(text)
            work.chmod(0o755)
            depends = subprocess.run(["apt-cache", "depends", PACKAGE], capture_output=True, text=True, check=True).stdout
            found = re.search(r"Depends: (linux-image-\S+)", depends)
            if found is None:
                raise Failure(f"no kernel package: {depends}")
            fetch = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", found[1]]
            subprocess.run(fetch, cwd=work, check=True)
            subprocess.run(["dpkg-deb", "-x", *map(str, work.glob("*.deb")), str(work / "kernel")], check=True)
            (version,) = (path.name for path in (work / "kernel/lib/modules").iterdir())
            subprocess.run(["depmod", "-b", str(work / "kernel"), version], check=True)
            BUILD.mkdir(parents=True, exist_ok=True)
            shutil.move(work / "kernel", place)
    (version,) = (path.name for path in (place / "lib/modules").iterdir())
    return place, version


def with_needs(modules: Path, names: tuple[str, ...]) -> list[Path]:
    """The files of kernel modules, each after those that it needs."""
    needs: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[path] = others.split()
    by_name = {Path(path).name.partition(".")[0].replace("-", "_"): path for path in needs}
    order: list[str] = []
    for name in names:
        if name in by_name:  # else it is built in
            order += [*reversed(needs[by_name[name]]), by_name[name]]
    return [modules / path for path in dict.fromkeys(order)]


class Archive:
    """An initial file system: cpio(5), the "new ASCII" format."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._count = 0

    def add(self, name: str, mode: int, content: bytes = b"") -> None:
        """One file, directory or link (whose content is its target)."""
        self._count += 1
        encoded = name.encode() + b"\0"
        fields = [self._count, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0]
        self.data += b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        self.data += bytes(-len(self.data) % 4) + content
        self.data += bytes(-len(self.data) % 4)

    def file(self, name: str, content: bytes, mode: int = 0o100755) -> None:
        """A regular file."""
        self.add(name, mode, content)

    def end(self) -> bytes:
        """The whole."""
        self.add("TRAILER!!!", 0)
        return bytes(self.data)


def initial_file_system(modules: Path, command: str) -> bytes:
    """What the kernel starts with: busybox, the modules that the root needs, and the scripts of `guest`."""
    archive = Archive()
    for name in ("bin", "dev", "proc", "sys", "mod", "newroot", "lower", "rw", "vm"):
        archive.add(name, 0o040755)
    busybox = shutil.which("busybox")
    if busybox is None:
        raise Failure("busybox is not installed")
    archive.file("bin/busybox", Path(busybox).read_bytes())
    for applet in APPLETS:
        archive.add(f"bin/{applet}", 0o120777, b"busybox")
    names = []
    for path in with_needs(modules, MODULES):
        content = path.read_bytes()
        if path.suffix == ".xz":
            content = lzma.decompress(content)
            path = path.with_suffix("")  # noqa: PLW2901
        names.append(path.name)
        archive.file(f"mod/{path.name}", content)
    archive.file("mod/list", "".join(f"{name}\n" for name in names).encode())
    archive.file("init", (GUEST / "initrd").read_bytes())
    for path in GUEST.iterdir():
        archive.file(f"vm/{path.name}", path.read_bytes())
    archive.file("vm/command", command.encode())
    return archive.end()


def virtiofsd() -> str:
    """The program that serves a directory to the machine."""
    for path in ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"):
        if os.access(path, os.X_OK):
            return path
    raise Failure("virtiofsd is not installed (Debian: qemu-system-common)")


def _copy(source: Path, target: int, word: bytes, seen: threading.Event) -> threading.Thread:
    def copy() -> None:
        last = b""
        with source.open("rb", buffering=0) as reader:
            while data := reader.read(1 << 16):
                last = last[-len(word) :] + data
                if word and word in last:
                    seen.set()
                os.write(target, data)

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread


def run(command: str, *, systemd: bool, seconds: int, memory: int, cpus: int, disk: Path | None = None, cut_at: str = "") -> int:
    """Boot, run, power off; the command's exit code. Raises Failure."""
    place, version = kernel()
    modules = place / "lib/modules" / version
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ocirt-vm-")))
        (work / "initrd").write_bytes(initial_file_system(modules, command))
        argv = [
            "qemu-system-x86_64",
            "-accel",
            "tcg,thread=multi,tb-size=512",
            "-cpu",
            "max",
            "-smp",
            str(cpus),
            "-m",
            str(memory),
        ]
        argv += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        argv += ["-object", f"memory-backend-memfd,id=mem,size={memory}M,share=on", "-machine", "q35,memory-backend=mem,hpet=off"]
        for tag, directory in (("root", Path("/")), ("modules", modules)):
            socket = work / tag
            options = [f"--socket-path={socket}", "-o", f"source={directory}", "-o", "cache=always", "-o", "sandbox=chroot"]
            log = stack.enter_context((work / f"{tag}.log").open("wb"))
            server = subprocess.Popen([virtiofsd(), *options, "-o", "xattr"], stdout=log, stderr=log)
            stack.callback(server.wait)
            stack.callback(server.kill)
            _wait_for(socket)
            argv += ["-chardev", f"socket,id={tag},path={socket}"]
            argv += ["-device", f"vhost-user-fs-pci,chardev={tag},tag={tag},queue-size=1024"]
        if disk is None:
            with (work / "scratch").open("wb") as scratch:
                scratch.truncate(SCRATCH)
        # A disk that is to survive has a cache that the machine must flush.
        how = f"file={work}/scratch,cache=unsafe" if disk is None else f"file={disk.absolute()},cache=writeback"
        argv += ["-drive", f"{how},format=raw,if=virtio"]
        argv += ["-chardev", f"file,id=console,path={work}/console", "-serial", "chardev:console", "-device", "virtio-serial-pci"]
        copies = []
        cut = threading.Event()
        for name, target in (("out", 1), ("err", 2)):
            os.mkfifo(work / name)
            copies.append(_copy(work / name, target, cut_at.encode() if name == "out" else b"", cut))
        (work / "code").touch()
        for name in ("out", "err", "code"):
            argv += ["-chardev", f"file,id={name},path={work}/{name}", "-device", f"virtserialport,chardev={name},name={name}"]
        mode = "systemd" if systemd else "fast"
        argv += ["-kernel", f"{place}/boot/vmlinuz-{version}", "-initrd", f"{work}/initrd"]
        # The self-tests of ciphers take long on a processor that is emulated, and may hang there (a soft lockup for good).
        # Without the word the kernel reads the time from a device that is emulated, which costs all that asks for it dearly.
        options = [
            "console=ttyS0",
            "quiet",
            "panic=-1",
            "cryptomgr.notests",
            "tsc=reliable",
            f"vm.mode={mode}",
            f"vm.directory={os.getcwd()}",
        ]
        argv += ["-append", " ".join(options)]
        with (work / "qemu.log").open("wb") as log:
            qemu = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            stack.callback(qemu.wait)
            stack.callback(qemu.kill)
            until = time.monotonic() + seconds
            while qemu.poll() is None and not cut.wait(0.01):
                if time.monotonic() > until:
                    print(f"the virtual machine ran past {seconds} s", file=sys.stderr)
                    return 124
            if cut.is_set():
                return 137
        for copy in copies:
            copy.join(5)
        code = (work / "code").read_text().strip()
        if not code:
            logs = "".join((work / name).read_text(errors="replace")[-3000:] for name in ("qemu.log", "root.log", "console"))
            raise Failure(f"the virtual machine gave no exit code:\n{logs}")
        return int(code)


def _wait_for(path: Path) -> None:
    for _ in range(500):
        if path.exists():
            return
        time.sleep(0.02)
    raise Failure(f"virtiofsd does not come up: {path.with_suffix('.log').read_text()}")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run a shell command in a virtual machine with cgroup version 2.")
    parser.add_argument("--systemd", action="store_true", help="systemd is its first process, with D-Bus")
    parser.add_argument("--seconds", type=int, default=600, help="how long it may take")
    parser.add_argument("--memory", type=int, default=4096, help="MiB")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--disk", type=Path, help="a file that is /dev/vda, and stays")
    parser.add_argument("--cut-at", default="", metavar="WORD", help="the power fails when the command writes this")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # with all that was started
    command = given.command[0] if len(given.command) == 1 else shlex.join(given.command)
    text = f"cd {shlex.quote(os.getcwd())} && {{ {command}\n}}"
    try:
        return run(
            text,
            systemd=given.systemd,
            seconds=given.seconds,
            memory=given.memory,
            cpus=given.cpus,
            disk=given.disk,
            cut_at=given.cut_at,
        )
    except (Failure, OSError, subprocess.CalledProcessError) as err:
        print(f"{Path(sys.argv[0]).name}: {err}", file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(main())
