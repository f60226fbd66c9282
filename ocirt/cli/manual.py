"""`ocirt manual`: manual pages in the man(7) language, made from the tables of flags and the texts of the help."""

from __future__ import annotations

from ocirt import __version__
from ocirt.cli import help as texts
from ocirt.cli import out, values
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options
    from ocirt.cli.values import Flag, Kind

SECTION = 8

_STATUSES = (
    ("0", "done"),
    ("1", "any failure, said in one line on standard error (see --log)"),
    ("3", "no such verb"),
    ("255", "exec failed before its process ran"),
    ("the container's own", "run, exec and restore that wait: what the process exited with, 128 + N if signal N ended it"),
)


def run(given: Options, args: list[str]) -> int:
    """Print the page of the verb args[0], or of the command. Raises Error("usage") for a verb that is not known."""
    del given
    verb = args[0] if args else ""
    if verb and verb not in texts.flag_lines():
        raise Error("usage", f"unknown verb: {verb}")
    out(page(verb))
    return 0


def names() -> dict[str, str]:
    """The verb of each page, "" for the command's own, by file name."""
    return {f"ocirt{'-' if verb else ''}{verb}.{SECTION}": verb for verb in ("", *texts.flag_lines())}


def page(verb: str) -> str:
    """One page."""
    name = f"ocirt-{verb}" if verb else "ocirt"
    summary = texts.verbs()[verb][0] if verb else "run containers from OCI bundles"
    lines = [
        f'.TH {name.upper()} {SECTION} "" "ocirt {__version__}"',
        f".SH NAME\n{_text(name)} \\- {_text(summary)}",
        ".SH SYNOPSIS",
    ]
    if verb:
        _, usage, description, _ = texts.verbs()[verb]
        start = f".B ocirt\n[\\fIglobal options\\fR]\n.B {verb}\n[\\fIoptions\\fR] "
        lines.append("\n.br\n".join(start + _text(form.strip()) for form in usage.split("||")))
        if description:
            lines += [".SH DESCRIPTION", _paragraphs(description)]
    else:
        lines += [".B ocirt", "[\\fIglobal options\\fR] \\fIverb\\fR [\\fIoptions\\fR] [\\fIarguments\\fR]"]
        lines += [".SH DESCRIPTION", "An OCI runtime that takes the command line of runc."]
        verbs = texts.verbs().items()
        lines += [".SH VERBS", *(f".TP\n.BR ocirt\\-{each} ({SECTION})\n{_text(entry[0])}" for each, entry in verbs)]
    lines += [".SH OPTIONS" if verb else ".SH GLOBAL OPTIONS", *map(_flag, values.flags(verb))]
    lines += [".SH EXIT STATUS", *(f".TP\n.B {_text(code)}\n{_text(text)}" for code, text in _STATUSES)]
    others = "" if not verb else f".BR ocirt ({SECTION}),\n"
    lines += [".SH SEE ALSO", others + ".UR https://github.com/opencontainers/runtime\\-spec\nthe runtime specification\n.UE"]
    return "\n".join(lines) + "\n"


def _flag(flag: Flag) -> str:
    value = f" \\fI{_text(_value(flag.kind))}\\fR" if flag.kind else ""
    shown = ", ".join(f"\\fB{_text(form)}\\fR{value}" for form in flag.forms())
    return f".TP\n{shown}\n{_text(flag.text)}{_text(' (may be given many times)') if flag.repeats else ''}"


def _value(kind: Kind) -> str:
    """What stands for a value: its kind, or the words if they are few."""
    if isinstance(kind, str):
        return kind
    return "|".join(kind) if len(kind) < 6 else "word"


def _paragraphs(text: str) -> str:
    return "\n.PP\n".join(_text(part) for part in text.split("\n\n"))


def _text(text: str) -> str:
    """Plain text: hyphens that are typed, backslashes, and no line that is taken for a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("\n", " ")
    return "\\&" + text if text[:1] in (".", "'") else text
