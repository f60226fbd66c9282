"""Making, joining, freezing, killing and removing a container's cgroups.

A container's cgroups are one directory per hierarchy: `paths`, from `paths.resolve`. What is done to a container later takes the
`cgroup` of its record: {"mode", "paths", "created"}. Several controllers may share a directory. Where a version 2 directory
exists (also beside version 1, "hybrid"), it does what version 1 can't: kill at once, tell when it is empty.
"""

from __future__ import annotations

import posix
from errno import EBUSY, EINVAL, ENOENT, ENOTEMPTY, EOPNOTSUPP, EROFS, ESRCH
from time import monotonic, sleep

from ocirt.cgroups.files import gone, read, write
from ocirt.errors import Error
from ocirt.paths import exists, parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIGKILL = 9
# Seconds that a freeze, a kill or a removal may take: much longer than the kernel needs, short enough to be waited for.
FREEZE_TIMEOUT = 10.0
KILL_TIMEOUT = 10.0
REMOVE_TIMEOUT = 3.0


def _directories(paths: dict[str, str]) -> list[str]:
    return list(dict.fromkeys(paths.values()))


# -- making --------------------------------------------------------------------------------------------------------------------


def create(paths: dict[str, str]) -> list[str]:
    """Make the directories of `paths` and the parents that they lack; the ones made, in order (what `remove` then owns).

    A version 1 cpuset gets its parent's processors and memory nodes, without which nothing can join it; in version 2 the parents
    hand on every controller that they have. All or nothing: raises the OSError of the first directory that can't be made, which
    is its `filename`, after removing what was made.
    """
    made: list[str] = []
    try:
        for directory in _directories(paths):
            try:
                posix.mkdir(directory, 0o755)
                made.append(directory)
            except FileExistsError:
                pass
            except FileNotFoundError:
                _make(directory, made)
        if "cpuset" in paths:
            _fill_cpuset(paths["cpuset"])
        if len(paths) == 1 and "" in paths:
            from ocirt.cgroups.unified import fit_in, hand_on  # noqa: PLC0415  (version 2 only)

            hand_on(paths[""])
            for directory in made:
                fit_in(directory)
    except BaseException:
        _undo(made)
        raise
    return made


def missing(paths: dict[str, str]) -> list[str]:
    """The directories that `create` will have to make, parents first: known before it is called, so that it can be undone."""
    found: list[str] = []
    for directory in _directories(paths):
        lacking = []
        place = directory
        while not exists(place) and parent(place) != place:
            lacking.append(place)
            place = parent(place)
        found += reversed(lacking)
    return list(dict.fromkeys(found))


def _make(directory: str, made: list[str]) -> None:
    # Again from the start if somebody (another container's removal) takes a parent away meanwhile.
    for attempt in range(10):
        missing = []
        place = directory
        while True:
            try:
                posix.mkdir(place, 0o755)
                made.append(place)
                break
            except FileExistsError:
                break
            except FileNotFoundError:
                missing.append(place)
                if parent(place) == place:
                    raise
                place = parent(place)
        try:
            for place in reversed(missing):
                try:
                    posix.mkdir(place, 0o755)
                    made.append(place)
                except FileExistsError:
                    pass
            return
        except FileNotFoundError:
            if attempt == 9:
                raise


def _undo(directories: list[str]) -> None:
    for directory in reversed(directories):
        try:
            posix.rmdir(directory)
        except OSError:
            pass


def _fill_cpuset(directory: str) -> None:
    for name in ("/cpuset.cpus", "/cpuset.mems"):
        _inherit(directory, name)


def _inherit(directory: str, name: str) -> str:
    """The value of a cpuset file, taken from the parent where it is still empty."""
    value = read(directory + name)
    if not value.strip():
        value = _inherit(parent(directory), name)
        write(directory + name, value.encode("ascii"))
    return value


# -- what was there before -----------------------------------------------------------------------------------------------------


def check_empty(paths: dict[str, str]) -> None:
    """Refuse cgroups that a container can't have to itself: with processes, or frozen. To be called before `create`.

    Of the version 1 hierarchies, "devices" is looked at for processes and "freezer" for its state. Raises Error, OSError.
    """
    directory = paths.get("devices") or _main(paths)
    if directory is not None:
        try:
            pids = _tree(directory)
        except OSError as error:
            if not gone(error):
                raise
            pids = []
        if pids:
            raise Error("state", f"container's cgroup is not empty: {len(pids)} process(es) found", subject=directory)
    if frozen({"paths": paths}):
        raise Error("state", "container's cgroup unexpectedly frozen", subject=paths.get("freezer") or paths[""])


def _main(paths: dict[str, str]) -> str | None:
    """The directory that stands for the container: where its processes are looked up."""
    for controller in ("", "devices", "freezer"):
        if controller in paths:
            return paths[controller]
    return next(iter(paths.values()), None)


# -- joining and limits --------------------------------------------------------------------------------------------------------


def attach(paths: dict[str, str], pid: int, *, unified: bool = True) -> None:
    """Move process `pid` into every directory of `paths`; without the unified one if it was cloned into it. Raises OSError."""
    number = str(pid).encode("ascii")
    skip = None if unified else paths.get("")
    for directory in _directories(paths):
        if directory == skip:
            continue
        for attempt in range(5):
            try:
                write(directory + "/cgroup.procs", number)
                break
            except OSError as error:
                # EINVAL: the task is so new that it can't be moved yet.
                if error.errno != EINVAL or attempt == 4:
                    raise
                sleep(0.001 * 4**attempt)


# -- looking -------------------------------------------------------------------------------------------------------------------


def processes(cgroup: dict[str, Any]) -> list[int]:
    """The pids of all processes in the container's cgroup and those below it. Empty when it is gone. Raises OSError."""
    directory = _main(cgroup["paths"])
    if directory is None:
        return []
    try:
        return _tree(directory)
    except OSError as error:
        if gone(error):
            return []
        raise


def _tree(directory: str, listed: bool = False) -> list[int]:
    """The pids in `directory` and below; `listed` says that a directory above has named those of threaded cgroups."""
    try:
        pids = [int(word) for word in read(directory + "/cgroup.procs").split() if word.isdecimal()]
        listed = True
    except OSError as error:
        if error.errno != EOPNOTSUPP:
            raise
        # A threaded cgroup has threads only; their processes are listed where its threaded subtree begins.
        pids = [] if listed else _leaders(read(directory + "/cgroup.threads").split())
    for child in _children(directory):
        try:
            pids += _tree(child, listed)
        except OSError as error:
            if not gone(error):
                raise
    return pids


def _leaders(threads: list[str]) -> list[int]:
    found = set()
    for thread in threads:
        try:
            found.add(int(read(f"/proc/{thread}/status").partition("\nTgid:")[2].split(None, 1)[0]))
        except (OSError, IndexError, ValueError):
            pass  # it has ended
    return sorted(found)


def _children(directory: str) -> list[str]:
    # kernfs counts a directory's children in its links, which saves reading some fifty names.
    if posix.stat(directory).st_nlink == 2:
        return []
    with posix.scandir(directory) as entries:
        return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]


def frozen(cgroup: dict[str, Any]) -> bool:
    """Whether the container is paused: its own cgroup is frozen or about to be, not just one above it. Raises OSError."""
    paths = cgroup["paths"]
    try:
        if "freezer" in paths:
            if read(paths["freezer"] + "/freezer.state") == "THAWED\n":
                return False
            return read(paths["freezer"] + "/freezer.self_freezing") == "1\n"
        return "" in paths and read(paths[""] + "/cgroup.freeze") == "1\n"
    except OSError as error:
        if gone(error):
            return False
        raise


# -- freezing ------------------------------------------------------------------------------------------------------------------


def freeze(cgroup: dict[str, Any]) -> None:
    """Freeze all processes, and return when they stand still. Raises Error (and thaws) after FREEZE_TIMEOUT, OSError."""
    paths = cgroup["paths"]
    if "freezer" not in paths and "" not in paths:
        raise Error("unsupported", "cannot toggle freezer: cgroups not configured for container")
    try:
        if "freezer" in paths:
            _freeze_v1(paths["freezer"])
        else:
            from ocirt.cgroups.unified import wait_event  # noqa: PLC0415

            write(paths[""] + "/cgroup.freeze", b"1")
            if not wait_event(paths[""], "frozen 1", FREEZE_TIMEOUT):
                raise Error("kernel", "unable to freeze", subject=paths[""])
    except (Error, OSError):
        # Half frozen is the worst state to leave it in.
        try:
            thaw(cgroup)
        except (Error, OSError):
            pass
        raise


def _freeze_v1(directory: str) -> None:
    # A process that is forked while the freezer walks the cgroup slips through, and the state stays FREEZING until it is written
    # again. Sometimes only a short thaw helps.
    end = monotonic() + FREEZE_TIMEOUT
    attempt = 0
    while True:
        write(directory + "/freezer.state", b"FROZEN")
        if read(directory + "/freezer.state") == "FROZEN\n":
            return
        if monotonic() > end:
            raise Error("kernel", "unable to freeze", subject=directory)
        attempt += 1
        if attempt % 50 == 0:
            write(directory + "/freezer.state", b"THAWED")
            sleep(0.01)
        elif attempt > 5:
            sleep(0.0002)


def thaw(cgroup: dict[str, Any]) -> None:
    """Let the processes run again. Raises Error when there is no freezer, OSError."""
    paths = cgroup["paths"]
    if "freezer" in paths:
        write(paths["freezer"] + "/freezer.state", b"THAWED")
    elif "" in paths:
        write(paths[""] + "/cgroup.freeze", b"0")
    else:
        raise Error("unsupported", "cannot toggle freezer: cgroups not configured for container")


# -- killing and removing ------------------------------------------------------------------------------------------------------


def kill(cgroup: dict[str, Any], signal: int) -> None:
    """Send `signal` to every process of the container; a cgroup that is gone holds none.

    SIGKILL goes out at once through version 2's cgroup.kill, and reaches frozen processes. Without that file (version 1, Linux
    before 5.14) all are frozen, signalled and thawed, for SIGKILL until none is left. Returns when the signals are sent, not when
    the processes are gone: `remove` waits. Raises Error when processes survive KILL_TIMEOUT, OSError.
    """
    paths = cgroup["paths"]
    if signal != SIGKILL:
        _signal_all(cgroup, signal)
        return
    if "" in paths:
        try:
            write(paths[""] + "/cgroup.kill", b"1")
        except OSError as error:
            if not gone(error) and error.errno != EOPNOTSUPP:  # of a threaded cgroup
                raise
        else:
            if "freezer" in paths:
                # What version 1 froze dies when it is thawed.
                try:
                    thaw(cgroup)
                except OSError as error:
                    if not gone(error):
                        raise
            return
    end = monotonic() + KILL_TIMEOUT
    pause = 0.0002
    while _signal_all(cgroup, signal):
        if monotonic() > end:
            raise Error("kernel", f"processes survive SIGKILL: {processes(cgroup)}", subject=_main(paths) or "")
        sleep(pause)
        pause = min(pause * 2, 0.02)


def _signal_all(cgroup: dict[str, Any], signal: int) -> int:
    """Signal every process, with none of them running, so that none forks meanwhile; how many there were."""
    was_frozen = frozen(cgroup)
    pids = processes(cgroup)
    if not pids:
        return 0
    if posix.getpid() in pids:
        raise Error("state", "this process is in the container's cgroup", subject=_main(cgroup["paths"]) or "")
    try:
        if not was_frozen:
            freeze(cgroup)
    except (Error, OSError):
        pass  # then as they run: whoever slips through is met in the next round
    try:
        pids = processes(cgroup)
        for pid in pids:
            try:
                posix.kill(pid, signal)
            except OSError as error:
                if error.errno != ESRCH:
                    raise
    finally:
        if not was_frozen or signal == SIGKILL:
            try:
                thaw(cgroup)
            except (Error, OSError):
                pass
    return len(pids)


def remove(cgroup: dict[str, Any]) -> None:
    """Remove the container's cgroups, with those below them, and the parents that `create` made as far as they are empty.

    At once when nothing is in them; processes that are on their way out are waited for. What is gone already is fine. Raises
    Error when one is still in use after REMOVE_TIMEOUT, OSError.
    """
    paths = cgroup["paths"]
    end = monotonic() + REMOVE_TIMEOUT
    left = _directories(paths)
    if "" in paths:
        # First where one can wait to be told: then they are empty in the other hierarchies too.
        left.remove(paths[""])
        left.insert(0, paths[""])
    failure: Error | OSError | None = None
    for directory in left:
        try:
            _remove_tree(directory, end, directory == paths.get(""))
        except (Error, OSError) as error:
            failure = failure or error
    _undo([directory for directory in cgroup.get("created") or () if directory not in left])
    if failure is not None:
        raise failure


def _remove_tree(directory: str, end: float, unified: bool) -> None:
    pause = 0.0002
    while not _try_remove(directory):
        # Children are in the way, or processes, or one that has just left.
        if not exists(directory + "/cgroup.procs") and exists(directory):
            raise Error("state", "is no cgroup, and is left as it is", subject=directory)
        try:
            for child in _children(directory):
                _remove_tree(child, end, unified)
            pids = _tree(directory)
        except OSError as error:
            if not gone(error):
                raise
            continue
        if not pids and _try_remove(directory):
            return
        remaining = end - monotonic()
        if remaining <= 0:
            text = " ".join(str(pid) for pid in pids[:10]) or "none seen"
            raise Error("kernel", "cgroup is still in use", subject=directory, cause=f"processes {text}")
        if pids and unified:
            from ocirt.cgroups.unified import wait_event  # noqa: PLC0415

            wait_event(directory, "populated 0", remaining)
        else:
            sleep(pause)
            pause = min(pause * 2, 0.02)


def _try_remove(directory: str) -> bool:
    """Whether `directory` is gone now; False when something is in it. Raises OSError."""
    try:
        posix.rmdir(directory)
    except OSError as error:
        if error.errno in (EBUSY, ENOTEMPTY):
            return False
        # EROFS is said of anything on a read-only mount, also of what is not there.
        if error.errno != ENOENT and (error.errno != EROFS or exists(directory)):
            raise
    return True
