"""Plans: from a validated config.json and a description of the host to the steps that make a container. Pure, no I/O.

A plan is one list of steps in the order in which they happen. Each step is one kernel operation, or one of the compound ones
that have to look at the container's tree (docs/plan.md lists them). Several processes walk the list, each its own steps:

- `parent`: the runtime's process, in the host's namespaces;
- `stage`: a process in between, only where namespaces must be joined or left before init can be cloned;
- `init`: the container's first process until `start`;
- `start`: the same process after `start`, up to execve.

They meet at `sync.tell` and `sync.wait`. What is not known when planning goes from step to step through named slots
(descriptors) of the interpreter, ocirt.kernel.run.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ocirt.plan.overlay import Overlay

    # operation and arguments: the names are those of the function ocirt.kernel.steps.<module>.<name>
    Call = tuple[str, tuple[Any, ...]]
    # What an errno leads to instead of a failure: None goes on, a call is made in the place of the one that failed.
    Errors = dict[int, Call | None]
    # side, operation, arguments, JSON pointer of what it comes from, errors
    Step = tuple[str, str, tuple[Any, ...], str, Errors | None]
    Plan = list[Step]

PARENT = "parent"
STAGE = "stage"
INIT = "init"
START = "start"
SIDES = (PARENT, STAGE, INIT, START)


class Host:
    """What a plan has to know about the machine and the caller.

    layout: the cgroup hierarchies (ocirt.cgroups.layout.Layout)
    root: whether the runtime's effective user is 0 (of the host, or of a user namespace)
    user_namespace: whether the runtime itself runs in a user namespace that is not the first
    waiter: the path of the program that waits for `start` in init's place, "" where there is none
    resctrl: the resctrl file system (ocirt.cgroups.resctrl.Resctrl) or None; looked up only for a document with intelRdt
    modules: "AppArmor" and "SELinux", if they are enabled; looked up only for a document that has profiles or labels
    systemd: what makes cgroups (ocirt.cgroups.units.Manager), if it is asked to
    """

    __slots__ = ("layout", "modules", "resctrl", "root", "systemd", "user_namespace", "waiter")

    def __init__(
        self,
        layout: Any,
        root: bool,  # noqa: FBT001
        user_namespace: bool,  # noqa: FBT001
        waiter: str = "",
        systemd: Any = None,
    ) -> None:
        self.layout = layout
        self.root = root
        self.user_namespace = user_namespace
        self.waiter = waiter
        self.resctrl: Any = None
        self.modules: tuple[str, ...] = ()
        self.systemd = systemd


class Request:
    """What the command line adds to config.json.

    container_id, bundle (absolute), directory (the container's, below the state root), state_root
    waits: init waits for `start` at a FIFO (`create`), instead of for the parent alone (`run`)
    console: "" for none, "socket" or "attached" for who gets the terminal's master
    fds: how many descriptors from 3 on go to the program; listen_fds: how many of them are LISTEN_FDS
    pipes: whether init's streams are pipes of the parent's instead of the caller's own
    keyring: whether init gets a session keyring of its own; pivot: pivot_root(2), not MS_MOVE and chroot(2)
    notify: whether init gets a socket for sd_notify(3), from the directory `notify` below the container's
    baseline: whether limits and the like that config.json leaves open come from ocirt.plan.baseline, not from the caller
    overlay: what the root is made of (ocirt.plan.overlay.Overlay), or None for the directory that /root/path names
    cgroups: "cgroupfs", "systemd" or "disabled"; lenient_cgroups: go on without those that may not be made
    """

    __slots__ = (
        "baseline",
        "bundle",
        "cgroups",
        "console",
        "container_id",
        "directory",
        "fds",
        "keyring",
        "lenient_cgroups",
        "listen_fds",
        "notify",
        "overlay",
        "pipes",
        "pivot",
        "state_root",
        "waits",
    )

    def __init__(
        self,
        container_id: str,
        bundle: str,
        directory: str,
        *,
        state_root: str = "",
        waits: bool = True,
        console: str = "",
        fds: int = 0,
        listen_fds: int = 0,
        pipes: bool = False,
        keyring: bool = True,
        pivot: bool = True,
        cgroups: str = "cgroupfs",
        lenient_cgroups: bool = False,
        notify: bool = False,
        baseline: bool = False,
        overlay: Overlay | None = None,
    ) -> None:
        self.container_id = container_id
        self.bundle = bundle
        self.directory = directory
        self.state_root = state_root
        self.waits = waits
        self.console = console
        self.fds = fds
        self.listen_fds = listen_fds
        self.pipes = pipes
        self.keyring = keyring
        self.pivot = pivot
        self.cgroups = cgroups
        self.lenient_cgroups = lenient_cgroups
        self.notify = notify
        self.baseline = baseline
        self.overlay = overlay


def step(side: str, operation: str, *arguments: Any, at: str = "", errors: Errors | None = None) -> Step:
    """One step; `at` is the JSON pointer of what it comes from."""
    return (side, operation, arguments, at, errors)


def id_lines(mappings: Iterable[dict[str, int]]) -> tuple[tuple[int, int, int], ...]:
    """Id mappings as the lines of /proc/PID/uid_map: first id inside, first id outside, how many."""
    return tuple((entry["containerID"], entry["hostID"], entry["size"]) for entry in mappings)
