"""`ocirt-cni manual`: the manual page in the man(7) language, made from the tables in `options`."""

from __future__ import annotations

from ocirt_cni.cli import options
from ocirt_cni.cli.options import Options
from ocirt_cni.cli.output import out

SECTION = 8
_FILES = {
    "/etc/cni/net.d": "networks: *.conflist, then *.conf and *.json; plugins for a network in a folder of its name",
    "/var/lib/cni/results": "what is attached, in the form of libcni",
    "/var/lib/cni/ocirt": "the lock, and files that are being written",
}
_STATUSES = {"0": "done", "1": "any failure, said in one line on the standard error", "3": "no such verb"}


def run(given: Options) -> int:
    """Print the page."""
    out(page())
    return 0


def page() -> str:
    """The one page of the command, with all verbs."""
    lines = [
        f'.TH OCIRT\\-CNI {SECTION} "" "ocirt"',
        ".SH NAME\nocirt\\-cni \\- attach network namespaces to networks, by CNI plugins",
        ".SH SYNOPSIS\n.B ocirt\\-cni\n[\\fIglobal options\\fR] \\fIverb\\fR [\\fIoptions\\fR] [\\fIarguments\\fR]",
        ".SH DESCRIPTION\nIt takes the command line and the environment of cnitool, runs ocirt's own plugins in its process,"
        "\nand executes those of others.",
        ".SH VERBS",
    ]
    for verb, (summary, arguments, _, _, flags, more) in options.VERBS.items():
        forms = [f"\\fB{_text(verb)}\\fR {_text(form)}".rstrip() for form in arguments.split("  || ")]
        lines.append(
            ".TP\n" + "\n.br\n".join(forms) + f"\n{_text(summary)}{'.' if more else ''}" + (f"\n{_text(more)}" if more else "")
        )
        if flags:
            lines += [".RS", *_flags(flags), ".RE"]
    lines += [".SH GLOBAL OPTIONS", *_flags(options.GLOBAL)]
    for head, texts in (("ENVIRONMENT", options.VARIABLES), ("FILES", _FILES), ("EXIT STATUS", _STATUSES)):
        lines += [f".SH {head}", *(f".TP\n.B {_text(name)}\n{_text(text)}" for name, text in texts.items())]
    lines.append(f".SH SEE ALSO\n.BR ocirt ({SECTION}),\n.UR https://www.cni.dev/docs/spec\nthe specification of CNI\n.UE")
    return "\n".join(lines) + "\n"


def _flags(line: str) -> list[str]:
    found = []
    for word in line.split():
        name, _, short = word.rstrip("=*").partition(",")
        value = " \\fIvalue\\fR" if word[-1] in "=*" else ""
        forms = ", ".join(f"\\fB{_text(form)}\\fR{value}" for form in (f"--{name}", f"-{short}" if short else "") if form)
        found.append(f".TP\n{forms}\n{_text(options.FLAGS[name])}")
    return found


def _text(text: str) -> str:
    """Plain text: hyphens that are typed, backslashes, and no line that is taken for a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text
