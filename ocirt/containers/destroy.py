"""The end of a container: nothing of it is left, then its poststop hooks run."""

from __future__ import annotations

from ocirt import jsonlite, state
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ocirt.state import Record

_SIGKILL = 9


def hook_state(record: Record) -> Callable[[str, int], bytes]:
    """A function of status and pid that gives the state as hooks read it (runtime-spec, "State"): nothing is loaded to do it."""
    head = jsonlite.dumps({"ociVersion": record.get("spec_version", ""), "id": record["id"]})[:-1]
    tail = jsonlite.dumps({"bundle": record["bundle"], "annotations": record["annotations"]})[1:]

    def text(status: str, pid: int) -> bytes:
        number = f'"pid":{pid},' if pid else ""
        return f'{head},"status":"{status}",{number}{tail}'.encode("utf-8", "surrogateescape")

    return text


def destroy(record: Record, directory: str, *, quiet: bool = False) -> list[str]:
    """Remove all that is left of a container whose init is gone, its directory last, then run its poststop hooks.

    Returns what those complain of.
    Raises Error or OSError for what is left, with the directory still there so that it can be tried again; `quiet`: never.
    """
    cgroup = record.get("cgroup")
    if cgroup and record["status"] == "creating":
        # A directory that was there before may be another container's: only what this one was to make is its own.
        mine = {name: path for name, path in cgroup["paths"].items() if path in cgroup["created"]}
        cgroup = cgroup | {"paths": mine}
    try:
        if cgroup and cgroup["paths"]:
            from ocirt.cgroups import control  # noqa: PLC0415  (only with cgroups)

            # A new pid namespace has ended with init. What CRIU has left half restored may have none yet.
            if record["namespaces"].get("pid") != "" or record["status"] == "creating":
                control.kill(cgroup, _SIGKILL)
            if cgroup.get("unit") and record["boot_id"] == state.boot_id():
                from ocirt.cgroups import units  # noqa: PLC0415  (only with systemd)

                units.remove(cgroup)
            control.remove(cgroup)
        if kept := record.get("resctrl"):
            from ocirt.cgroups import resctrl  # noqa: PLC0415  (only if it has a group)

            resctrl.remove(kept, failed=record["status"] == "creating")
        if record.get("anchor"):
            from ocirt.containers import anchor  # noqa: PLC0415  (only without a mount namespace)

            anchor.remove(record, directory)
        state.remove(directory)
    except (Error, OSError):
        if not quiet:
            raise
    said: list[str] = []
    for index, hook in enumerate((record.get("hooks") or {}).get("poststop", ())):
        from ocirt.kernel.steps import hooks  # noqa: PLC0415  (only if there are any)

        try:
            hooks.execute(hook, hook_state(record)("stopped", 0), f"error running poststop hook #{index}")
        except OSError as err:
            said.append(str(err.filename))  # the container is gone whatever a hook says (runtime-spec, "Lifecycle")
    return said
