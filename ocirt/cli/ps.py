"""`ocirt ps`: the processes of a container, as ps(1) shows them."""

from __future__ import annotations

import posix

from ocirt import jsonlite, state
from ocirt.cli import out
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options


def run(options: Options, args: list[str]) -> int:
    """Print those lines of `ps args[1:]` (default: -ef) whose PID is of container args[0]; or with --format json the host's pids.

    Raises Error("not-found"), Error("usage") for an unknown format, Error("kernel") when ps fails.
    """
    from ocirt.cgroups import control  # noqa: PLC0415

    record = state.load(options.root, args[0])
    pids = control.processes(record["cgroup"])
    form = options.get("format") or "table"
    if form == "json":
        out((jsonlite.dumps(pids) if pids else "null") + "\n")
    elif form == "table":
        out(select(_ps(args[1:] or ["-ef"]), pids))
    else:
        raise Error("usage", "invalid format option")
    return 0


def select(output: str, pids: list[int]) -> str:
    """The head line of ps's output, and the lines whose PID column holds one of `pids`. Raises Error("kernel")."""
    head, *lines = output.split("\n")
    try:
        column = head.split().index("PID")
    except ValueError:
        raise Error("kernel", "couldn't find PID field in ps output") from None
    wanted = {str(pid) for pid in pids}
    kept = [head]
    for line in lines:
        fields = line.split()
        if len(fields) > column and fields[column] in wanted:
            kept.append(line)
    return "\n".join(kept) + "\n"


def _ps(args: list[str]) -> str:
    """What `ps args` writes. Raises Error("kernel") with its output when it fails or is not installed."""
    reader, writer = posix.pipe()
    actions = [
        (posix.POSIX_SPAWN_DUP2, writer, 1),
        (posix.POSIX_SPAWN_DUP2, writer, 2),
    ]
    try:
        pid = posix.posix_spawnp("ps", ["ps", *args], posix.environ, file_actions=actions)
    except OSError as err:
        text = posix.strerror(err.errno or 0).lower()
        raise Error("kernel", f'exec: "ps": {text}', hint="--format json needs no ps") from None
    finally:
        posix.close(writer)
    chunks = []
    while chunk := posix.read(reader, 1 << 16):
        chunks.append(chunk)
    posix.close(reader)
    status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    output = b"".join(chunks).decode("utf-8", "surrogateescape")
    if status:
        raise Error("kernel", f"exit status {status}: {output}" if status > 0 else f"signal {-status}: {output}")
    return output
