"""`ocirt list`: the containers below the state root, as a table, as JSON or by name."""

from __future__ import annotations

import posix

from ocirt import jsonlite, state
from ocirt.cli import log, out
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options
    from ocirt.state import Record

_HEAD = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def run(options: Options, args: list[str]) -> int:
    """Print the containers. One that cannot be read is named on standard error, and the others are shown.

    Raises Error("usage") for an unknown format, Error("not-found") if --root names a directory that is not there.
    """
    del args
    shown = _containers(options)
    if options.get("quiet"):
        out("".join(each["id"] + "\n" for each in shown))
        return 0
    form = options.get("format") or "table"
    if form == "table":
        out(table([_HEAD, *(tuple(str(each[key.lower()]) for key in _HEAD) for each in shown)]))
    elif form == "json":
        out((jsonlite.dumps(shown) if shown else "null") + "\n")
    else:
        raise Error("usage", "invalid format option")
    return 0


def _containers(options: Options) -> list[Record]:
    try:
        names = state.identifiers(options.root)
    except FileNotFoundError as err:
        if not options.root_given:
            return []  # nothing was ever run
        raise Error("not-found", f"open {log.describe(err)}") from None
    shown = []
    for name in names:
        try:
            shown.append(state.public(state.load(options.root, name), owner(f"{options.root}/{name}")))
        except (Error, OSError) as err:
            text = log.describe(err)
            if posix.access(f"{options.root}/{name}", posix.F_OK):  # not one that was deleted while we looked
                out(f"load container {name}: {text}\n", 2)
    return shown


def owner(path: str) -> str:
    """The name of the user who owns a path, `#` and the number where there is no name. Raises OSError."""
    import pwd  # noqa: PLC0415

    uid = posix.stat(path).st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows as lines: each column is as wide as its widest cell and three spaces, at least twelve; the last is not padded."""
    widths = [max(12, 3 + max(len(row[column]) for row in rows)) for column in range(len(rows[0]) - 1)]
    return "".join("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + row[-1] + "\n" for row in rows)
