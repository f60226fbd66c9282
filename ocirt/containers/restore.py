"""`restore`: a container whose processes CRIU brings back from a checkpoint, or nothing at all."""

from __future__ import annotations

import posix

from ocirt import paths, state
from ocirt.cgroups.layout import own_cgroups
from ocirt.containers.checkpoint import directories, place, read_descriptors
from ocirt.containers.create import Creation
from ocirt.criu import delegation, request, service
from ocirt.errors import Error
from ocirt.kernel import constants as k
from ocirt.kernel import mount, process
from ocirt.plan.restore import plan_restore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.kernel.run import Run
    from ocirt.plan import Plan
    from ocirt.state import Record

_O_PATH = 0o10000000
_FIRST_EXTRA = 4  # in CRIU, behind the standard streams and its socket


class Restoration(Creation):
    """A container on its way back: `prepare`, then `make`. What fails leaves nothing."""

    _has_init = False

    def set_flags(self, flags: dict[str, Any]) -> None:
        """Take the flags: image-path and work-path (absolute, the latter may be ""), and what ocirt.criu.request takes.

        Raises Error for images that are none, and without a CRIU that can be used.
        """
        self._flags = flags
        self._streams = read_descriptors(flags["image-path"])
        service.check_version()

    def _plan(self, cgroups: dict[str, str]) -> Plan:
        return plan_restore(self.spec, self.host, self.request, cgroups)

    def prepare(self, trace: str = "") -> Run:
        """As of a new container. Raises Error, OSError."""
        run = super().prepare(trace)
        run.launch = self._start_criu
        return run

    def make(self) -> Record:
        """Make what CRIU needs, and have it restore the processes. They run when this returns. Raises Error, OSError."""
        super().make()
        with delegation.Kept(self._criu.pid):
            self._attempt(self._restore)
        return self.record

    def _start_criu(self) -> None:
        """Step `criu.start`."""
        run = self.run
        assert run is not None
        posix.waitpid(run.pid, 0)  # the mount targets were all that it was for
        posix.close(run.sync)
        run.pid, run.sync = 0, -1
        self._root = self.request.directory + "/criu-root"
        posix.mkdir(self._root, 0o700)
        self._places = directories(self._flags)
        kinds = [kind for kind in request.OUTSIDE if "namespace/" + kind in run.fds]
        self._inherited = {kind: _FIRST_EXTRA + at for at, kind in enumerate(kinds)}
        given = run.stdio or (-1, -1, -1)
        self._criu = service.Service(
            tuple(fd if fd >= 0 else own for own, fd in enumerate(given)),
            tuple(run.fds["namespace/" + kind] for kind in kinds),
            cgroup_fd=run.cgroup_fd,
            join_fds=tuple(run.join_fds),
            root=(self.record["rootfs"], self._root),
            directories=self._places,
        )
        run.pid = self._criu.pid

    def _restore(self) -> None:
        run, criu = self.run, self._criu
        assert run is not None
        try:
            criu.ask("RESTORE", {"opts": self._options(criu.pid) | criu.options()}, self._notified)
            if code := criu.end():
                raise service.CriuError(f"criu failed: exit status {code}")
        except service.CriuError as err:
            raise service.explain(err, f"{self._places[-1]}/{request.RESTORE_LOG}") from None
        finally:
            criu.end()
            if not self._has_init:
                run.pid = 0  # it was CRIU's
            posix.rmdir(self._root)

    def _options(self, criu: int) -> dict[str, Any]:
        text = paths.read_text(f"/proc/{criu}/cgroup")
        groups = {name: path for controllers, path in own_cgroups(text) for name in controllers}
        rootfs = posix.open(self.record["rootfs"], _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        try:
            mounts = request.mounts_from_outside(
                self.spec,
                self.record["bundle"],
                self.host.layout,
                self.record["cgroup"]["paths"],
                lambda path: place(rootfs, path),
            )
        finally:
            posix.close(rootfs)
        return request.restore(
            self.spec,
            self._flags,
            root=self._root,
            groups=groups,
            mounts=mounts,
            streams=self._streams,
            inherited=self._inherited,
        )

    def _notified(self, script: str, pid: int, fd: int) -> None:
        run = self.run
        assert run is not None
        if script == "setup-namespaces":
            self._take_init(run, pid)
        elif script == "post-restore":
            self._take_init(run, pid)
            if self.spec["root"].get("readonly"):
                _make_root_read_only(pid)
            self._write_created()
            self._commit()
        elif script == "orphan-pts-master" and fd >= 0:
            run.on_console(_name(fd), fd)

    def _take_init(self, run: Run, pid: int) -> None:
        """The new init is there; it does not run yet. Whoever finds the record of a dead runtime can end it from here on."""
        if run.pid == pid:
            return
        run.pid = pid
        self._has_init = True
        self.record |= {"pid": pid, "start_time": state.process_start_time(pid) or 0}
        if "time" not in self.record["namespaces"] and _differs(pid, "time"):
            self.record["namespaces"]["time"] = ""  # which CRIU makes, so that clocks go on from where they were
        state.save(self.request.directory, self.record)
        if self.record["namespaces"].get("network") == "":
            from ocirt.kernel.steps import namespace  # noqa: PLC0415

            namespace.loopback_up_of_init(run)
        for kind in ("prestart", "createRuntime"):
            for index, hook in enumerate(self.record["hooks"].get(kind, ())):
                from ocirt.kernel.steps import hooks  # noqa: PLC0415

                try:
                    hooks.run(run, kind, index, hook, "creating")
                except hooks.HookError as err:
                    raise Error("kernel", str(err.filename), subject=f"/hooks/{kind}/{index}") from None

    def undo(self) -> None:
        """The hooks at its end are for a container that there was."""
        if not self._has_init:
            self.record["hooks"] = {}
        super().undo()


def _make_root_read_only(pid: int) -> None:
    """CRIU 3.17 gives back a root that can be written to (on Linux 6.1): see to it before the processes run. Raises Error."""
    namespace = posix.open(f"/proc/{pid}/ns/mnt", posix.O_RDONLY | posix.O_CLOEXEC)
    child = process.clone3(0)
    if child == 0:
        # With what is loaded: paths lead into the container from the first call on.
        try:
            process.setns(namespace, k.CLONE_NEWNS)
            mount.mount_setattr(k.AT_FDCWD, k.MOUNT_ATTR_RDONLY, path=b"/")
            posix._exit(0)
        finally:
            posix._exit(1)
    posix.close(namespace)
    if posix.waitpid(child, 0)[1]:
        raise Error("kernel", "the restored root cannot be made read-only", subject="/root/readonly")


def _differs(pid: int, kind: str) -> bool:
    """Whether a process is in another namespace than this one."""
    try:
        return posix.stat(f"/proc/{pid}/ns/{kind}").st_ino != posix.stat(f"/proc/self/ns/{kind}").st_ino
    except OSError:
        return False  # this kernel has none of the kind


def _name(master: int) -> str:
    """The name of a terminal in its devpts."""
    import fcntl  # noqa: PLC0415

    return f"/dev/pts/{int.from_bytes(fcntl.ioctl(master, k.TIOCGPTN, bytes(4)), 'little')}"
