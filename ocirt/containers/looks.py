"""A look for each step of a plan: would it fail on this machine? Loaded only for `check`.

A step that only looks is done; of the others, what they need is looked at. The words are those in which the step's own failure
would be told.
"""

from __future__ import annotations

import posix
from errno import EACCES, ENODEV, ENOENT, EPERM

from ocirt import paths
from ocirt.cgroups.limits import OR_NEXT, REQUIRED
from ocirt.containers.examine import error_finding
from ocirt.containers.failures import explain
from ocirt.errors import Error
from ocirt.kernel import mount, resolve
from ocirt.kernel.ffi import CallError
from ocirt.kernel.run import Run, StepError, failure, function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt.plan import Host, Plan, Request
    from ocirt.spec.shape import Finding

_O_PATH = 0o10000000
_SYS_RESOURCE = 1 << 24
_NOFILE = 7
_NS_FILES = {"network": "net", "mount": "mnt"}
# Those of one interface are there only where the interface is.
_INTERFACES = ("conf", "neigh")
_ONLY_LOOK = ("anchor.check", "cgroup.check", "namespace.open", "tree.check_root")
# What would be right, where the step's failure does not say it.
_HINTS = {
    "cgroup.make": "a cgroup below which this user may make others, see cgroups(7), or a path that is not read-only",
    "device.bind": "without the right to make devices only those of this machine can be had: see its /dev",
    "mount.clone": "a path on this machine, absolute or relative to the bundle",
    "mount.new": "see what the file system takes as options",
    "namespace.open": "a namespace of this type, such as /proc/PID/ns/…, or no path for a new one",
    "tree.check_root": "a directory, absolute or relative to the bundle",
    "tree.sysctl": "a name that is there below /proc/sys, or the kernel module that brings it",
}


class Looks:
    """The findings on the steps of a plan."""

    def __init__(self, spec: dict[str, Any], host: Host, request: Request, plan: Plan) -> None:
        self.spec = spec
        self.host = host
        self.plan = plan
        self.findings: list[Finding] = []
        self.rootfs = paths.clean(paths.join(request.bundle, spec["root"]["path"]))
        self._status = paths.read_text("/proc/self/status")
        self._namespaces()
        looks: dict[str, Callable[..., None]] = {
            "cgroup.limit": self._limits,
            "cgroup.make": self._cgroups,
            "device.bind": self._device,
            "hooks.run": self._hook,
            "mount.clone": self._source,
            "mount.new": self._file_system,
            "process.raise_limit": self._limit,
            "process.set_capabilities": self._capabilities,
            "program.find": self._program,
            "program.load_filter": self._filter,
            "tree.sysctl": self._sysctl,
            "user.map": self._mappings,
        }
        for index, (_, operation, arguments, _, _) in enumerate(plan):
            if operation in _ONLY_LOOK:
                self._do(index)
            elif operation in looks:
                looks[operation](index, *arguments)
        for kind in ("poststart", "poststop"):
            for number, hook in enumerate((spec.get("hooks") or {}).get(kind) or ()):
                self._executable(hook["path"], f"/hooks/{kind}/{number}/path", "error" if kind == "poststart" else "warning")

    def _fail(self, index: int, errno: int, call: str, detail: str = "") -> None:
        """The finding that step `index` would fail."""
        err = explain(StepError(index, errno, call, detail), self.plan, index)
        self.findings.append(error_finding(err, hint=_HINTS.get(self.plan[index][1], "leave it out")))

    def _say(self, pointer: str, message: str, hint: str, severity: str = "warning") -> None:
        self.findings.append((pointer, message, hint, severity))

    def _capability(self, field: str) -> int:
        """A set of this process (CapEff, CapPrm) as a mask."""
        for line in self._status.split("\n"):
            if line.startswith(field + ":"):
                return int(line.split()[1], 16)
        return 0

    def _do(self, index: int) -> None:
        _, operation, arguments, pointer, _ = self.plan[index]
        run = Run([])
        try:
            function(operation)(run, *arguments)
        except OSError as err:
            said = failure(index, err)
            self._fail(index, said.errno, said.call, said.detail)
        except Error as err:
            self.findings.append(error_finding(err, pointer))
        finally:
            for fd in run.fds.values():
                posix.close(fd)

    def _namespaces(self) -> None:
        for index, entry in enumerate(self.spec["linux"].get("namespaces", ())):
            if entry.get("path"):
                continue
            pointer, kind = f"/linux/namespaces/{index}", entry["type"]
            file = _NS_FILES.get(kind, kind)
            if not paths.exists("/proc/self/ns/" + file):
                self._say(pointer, f"this kernel has no {kind} namespaces", "take it out", "error")
            elif _none_allowed(file):
                where = f"/proc/sys/user/max_{file}_namespaces"
                self._say(pointer, f"{where} is 0: none can be made", f"raise it, by `sysctl` or in {where}", "error")

    def _source(self, index: int, slot: str, path: str, recursive: bool) -> None:  # noqa: FBT001
        del recursive
        if slot == "root":
            return  # looked at by itself
        try:
            posix.stat(path)
        except PermissionError:
            pass  # init may be allowed what we are not
        except OSError as err:
            self._fail(index, err.errno or ENOENT, "open_tree")

    def _file_system(self, index: int, slot: str, kind: str, source: str, data: Any, *rest: Any) -> None:
        del slot, rest
        name = kind.partition(".")[0]
        known = [line.rpartition("\t")[2] for line in paths.read_text("/proc/filesystems").split("\n")]
        if name not in known:
            if not _has_module("fs-" + name):
                self._fail(index, ENODEV, "fsopen")
            return  # to ask it, the kernel would load it
        try:
            posix.close(mount.configure(kind, source, data))
        except CallError as err:
            if err.call == "fsconfig":  # else we may not ask
                said = failure(index, err)
                self._fail(index, said.errno, said.call, said.detail)

    def _device(self, index: int, path: str) -> None:
        if not paths.exists(path):
            self._fail(index, ENOENT, "open_tree")

    def _limit(self, index: int, number: int, name: str, hard: int) -> None:
        del name
        import resource  # noqa: PLC0415

        had = resource.getrlimit(number)[1]
        if had == resource.RLIM_INFINITY or hard <= had:
            return
        allowed = bool(self._capability("CapEff") & _SYS_RESOURCE) and not self.host.user_namespace
        if allowed and number == _NOFILE:
            allowed = hard <= int(paths.read_text("/proc/sys/fs/nr_open"))
        if not allowed:
            self._fail(index, EPERM, "prlimit64")

    def _capabilities(self, index: int, effective: int, permitted: int, inheritable: int) -> None:
        del effective
        if any(entry["type"] == "user" for entry in self.spec["linux"].get("namespaces", ())):
            return  # init has all of them there
        bounding = next((step[2][0] for step in self.plan if step[1] == "process.limit_bounding_set"), -1)
        if permitted & ~self._capability("CapPrm") or inheritable & ~(bounding | self._capability("CapInh")):
            self._fail(index, EPERM, "capset")

    def _cgroups(self, index: int, found: dict[str, str]) -> None:
        if self.plan[index][4]:
            return  # the plan goes on without
        from ocirt.cgroups.paths import writable  # noqa: PLC0415

        usable = writable({name: path for name, path in found.items() if not paths.exists(path)})
        for name, path in found.items():
            if not paths.exists(path) and name not in usable:
                self._fail(index, EACCES, "mkdir", path)
                return

    def _limits(self, index: int, found: dict[str, str], entries: tuple[Any, ...]) -> None:
        from ocirt.cgroups.apply import explained  # noqa: PLC0415

        del index
        skip = False
        said = set()
        for entry in entries:
            controller, file, value, pointer, missing = entry
            if skip:
                skip = False
                continue
            there = self._has_file(found, controller, file)
            if missing == OR_NEXT:
                skip = there is not False
            elif there is False and missing == REQUIRED and pointer not in said:
                said.add(pointer)
                err = OSError(ENOENT, "")
                if controller in found or ("" in found and len(found) == 1):
                    err.filename = f"{found.get(controller) or found['']}/{file}"
                self.findings.append(error_finding(explained(found, entry, err)))
            elif controller == "cpuset" and there is not False and (beyond := _beyond(file, value)):
                self._say(pointer, f"this machine has no {beyond}", "what there is: see /sys/devices/system", "error")

    def _has_file(self, found: dict[str, str], controller: str, file: str) -> bool | None:
        """Whether a new cgroup will have this file; None if that cannot be told from the cgroups that are there."""
        directory = found.get(controller) or found.get("")
        if directory is None or (controller and controller not in found and len(found) > 1):
            return False
        unified = controller not in found or not controller
        while not paths.exists(directory):
            directory = paths.parent(directory)
        if unified and controller:
            try:
                have = paths.read_text(directory + "/cgroup.controllers").split()
            except OSError:
                return None
            if controller not in have:
                return False
        if directory == self.host.layout.mounts.get("" if unified else controller):
            # The root has other files than the rest.
            below = [name for name in sorted(posix.listdir(directory)) if paths.exists(f"{directory}/{name}/cgroup.procs")]
            if not below:
                return True if paths.exists(f"{directory}/{file}") else None
            directory = f"{directory}/{below[0]}"
        try:
            if unified and controller and controller not in paths.read_text(directory + "/cgroup.controllers").split():
                return None
        except OSError:
            return None  # it has just gone
        return paths.exists(f"{directory}/{file}") or (False if paths.exists(directory) else None)

    def _sysctl(self, index: int, path: str, value: str) -> None:
        del value
        if not any(part in _INTERFACES for part in path.split("/")) and not paths.exists("/proc/sys/" + path):
            self._fail(index, ENOENT, "openat2", "sys/" + path)

    def _filter(self, index: int, root: str, section: dict[str, Any], *rest: Any) -> None:
        del root, index, rest
        from ocirt.seccomp.compile import compile_filter  # noqa: PLC0415

        try:
            compile_filter(section)
        except Error as err:
            self.findings.append(error_finding(err))

    def _program(self, index: int, name: str, path: str) -> None:
        """A warning only: a mount or a hook may bring the program."""
        cwd = paths.clean(self.spec["process"]["cwd"])
        places = [paths.join(cwd, name)] if "/" in name else [paths.join(cwd, place, name) for place in path.split(":") if path]
        try:
            root = posix.open(self.rootfs, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        except OSError:
            return  # said of the root
        try:
            for place in places:
                if any(_below(place, each["destination"]) for each in self.spec.get("mounts", ())):
                    return
                try:
                    posix.close(resolve.open_in_root(root, place, _O_PATH))
                    return
                except OSError:
                    pass
        finally:
            posix.close(root)
        hint = "a path in the container, or a name that one of PATH's directories has"
        self._say(self.plan[index][3], f'"{name}" is not in the root file system', hint)

    def _hook(self, index: int, kind: str, number: int, hook: dict[str, Any], status: str) -> None:
        del index, status
        if kind != "startContainer":  # that one is looked up in the container
            self._executable(hook["path"], f"/hooks/{kind}/{number}/path", "error")

    def _executable(self, path: str, pointer: str, severity: str) -> None:
        if not paths.exists(path):
            self._say(pointer, f'"{path}" is not there', "the path of a program on this machine", severity)
        elif posix.stat(path).st_mode & resolve.S_IFMT != 0o100000 or not posix.access(path, posix.X_OK, effective_ids=True):
            self._say(pointer, f'"{path}" cannot be executed', "a file with the right mode: chmod +x", severity)

    def _mappings(self, index: int, uids: Any, gids: Any, root: bool) -> None:  # noqa: FBT001
        if root:
            return
        search = posix.environ.get(b"PATH", b"/usr/local/bin:/usr/bin:/bin").decode("utf-8", "surrogateescape").split(":")
        for kind, lines, own in (("uid", uids, posix.geteuid()), ("gid", gids, posix.getegid())):
            program = f"new{kind}map"
            if len(lines) == 1 and lines[0][1:] == (own, 1):
                continue
            if not any(posix.access(paths.join(place, program), posix.X_OK) for place in search):
                self._fail(index, ENOENT, "", f"{program} is needed for more than one id; install uidmap")
                return


def _below(path: str, destination: str) -> bool:
    place = paths.clean("/" + destination)
    return place == "/" or (paths.clean(path) + "/").startswith(place + "/")


def _none_allowed(file: str) -> bool:
    try:
        return paths.read_text(f"/proc/sys/user/max_{file}_namespaces").strip() == "0"
    except OSError:
        return False


def _has_module(alias: str) -> bool:
    """Whether the kernel could load a module of this alias (modules.alias, see modprobe(8))."""
    try:
        text = paths.read_text(f"/lib/modules/{posix.uname().release}/modules.alias", 1 << 26)
    except OSError:
        return False
    return f"alias {alias} " in text


def _beyond(file: str, value: str) -> str:
    """The first CPU or node of a cpuset that this machine does not have, in words, or ""."""
    kind, place = ("CPU", "cpu/possible") if file.endswith("cpus") else ("memory node", "node/possible")
    try:
        text = paths.read_text("/sys/devices/system/" + place).strip()
    except OSError:
        return ""
    last = int(text.rpartition(",")[2].rpartition("-")[2])
    for part in value.strip().split(","):
        number = part.partition(":")[0].rpartition("-")[2].strip()
        if number.isdecimal() and int(number) > last:
            return f"{kind} {number}"
    return ""
