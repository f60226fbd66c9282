"""The texts of `--help`, all from the tables in `options`."""

from __future__ import annotations

import sys

from ocirt_cni import versions
from ocirt_cni.cli import options
from ocirt_cni.cli.output import out


def show(verb: str) -> int:
    """Print the help of a verb, or of the whole command for "". Returns 0, the exit status."""
    out(of_verb(verb) if verb else of_command())
    return 0


def version() -> int:
    """Print which versions of CNI are supported, and the interpreter's. Returns 0, the exit status."""
    python = ".".join(map(str, sys.version_info[:3]))
    out(f"ocirt-cni\nCNI protocol versions supported: {', '.join(versions.SUPPORTED)}\npython: {python}\n")
    return 0


def of_command() -> str:
    """The help of the whole command."""
    return "\n".join(
        [
            "NAME:\n   ocirt-cni - attach network namespaces to networks, by CNI plugins\n",
            "USAGE:\n   ocirt-cni [global options] verb [options] [arguments...]\n",
            "VERBS:",
            *_columns({verb: entry[0] for verb, entry in options.VERBS.items()}),
            "\nGLOBAL OPTIONS:",
            *_columns(_flags(options.GLOBAL)),
            "\nENVIRONMENT:",
            *_columns(options.VARIABLES),
            "",
        ]
    )


def of_verb(verb: str) -> str:
    """The help of a verb."""
    summary, arguments, _, _, flags, more = options.VERBS[verb]
    lines = [f"NAME:\n   ocirt-cni {verb} - {summary}\n", "USAGE:"]
    for form in arguments.split("  || "):
        lines.append("   " + " ".join(part for part in ("ocirt-cni", verb, "[options]" if flags else "", form) if part))
    if more:
        lines += ["", more]
    if flags:
        lines += ["\nOPTIONS:", *_columns(_flags(flags))]
    return "\n".join(lines) + "\n"


def _flags(line: str) -> dict[str, str]:
    """What is shown of flags, and their texts."""
    shown = {}
    for word in line.split():
        name, _, short = word.rstrip("=*").partition(",")
        value = " value" if word[-1] in "=*" else ""
        shown[f"--{name}{value}" + (f", -{short}{value}" if short else "")] = options.FLAGS[name]
    return shown


def _columns(texts: dict[str, str]) -> list[str]:
    width = max(map(len, texts))
    return [f"   {name.ljust(width)}  {text}" for name, text in texts.items()]
