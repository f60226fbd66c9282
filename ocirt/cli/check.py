"""`ocirt check`: all that is wrong with a bundle at once, for this machine, without making anything."""

from __future__ import annotations

from ocirt.cli import out
from ocirt.cli.target import target
from ocirt.containers.examine import examine
from ocirt.plan import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options
    from ocirt.spec.shape import Finding


def run(options: Options, args: list[str]) -> int:
    """Print the findings, errors first; 1 if one is an error, else 0. Raises Error where there is no document to judge."""
    bundle, container_id = target(options, args)
    request = Request(
        container_id, bundle, f"{options.root}/{container_id}", state_root=options.root, cgroups=options.cgroup_manager
    )
    findings = sorted(examine(request, options.get("config") or "config.json", options.rootless), key=_order)
    if options.get("json"):
        from ocirt.jsonlite import dumps  # noqa: PLC0415

        names = ("severity", "pointer", "message", "hint")
        shown = [dict(zip(names, (each[3], *each[:3]), strict=True)) for each in findings]
        out(dumps(shown, 2) + "\n")
    else:
        out("".join([as_text(finding) for finding in findings]) or "no findings\n")
    return 1 if findings and findings[0][3] == "error" else 0


def _order(finding: Finding) -> tuple[bool, list[tuple[int, str]]]:
    """Errors before warnings, then by pointer, with the indices of arrays as numbers."""
    tokens = [
        (int(token), "") if token.isascii() and token.isdecimal() and len(token) < 10 else (-1, token)
        for token in finding[0].split("/")
    ]
    return (finding[3] != "error", tokens)


def as_text(finding: Finding) -> str:
    """A finding as a line, and one more for what would be right; nothing in it can move a terminal's cursor."""
    pointer, message, hint, severity = finding
    first = f"{severity} {pointer or '(document)'}: {message}"
    return _printable(first) + "\n" + (f"    {_printable(hint)}\n" if hint else "")


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in text)
