"""ocirtd's manual page in the man(7) language, and the table of docs/ocirtd.md, both made from the tables of keys and flags."""

from __future__ import annotations

from ocirt_cri import config
from ocirt_cri.keys import BY_NAME, KEYS, Key
from ocirt_cri.spec.inputs import CAPABILITIES, SYSCTLS

SECTION = 8
_LONG = {CAPABILITIES: "docker's fourteen"}
_FILES = {
    config.PLACE: "the configuration",
    "/run/ocirt/ocirt.sock": "the socket of the CRI",
    "/run/ocirt": "shims, the files of pods, the records of the runtime",
    "/var/lib/ocirt": "the table of pods and containers, and the store of images",
}
_STATUSES = {"0": "it was told to end", "1": "any failure", "2": "a command line or a configuration that is wrong"}


def default_of(key: Key) -> str:
    """A default as a person reads it."""
    if isinstance(key.default, dict):
        return "two of net.ipv4" if key.default == SYSCTLS else config.shown(key.default)
    return _LONG.get(key.default) or config.shown(key.default)


def table() -> str:
    """The rows of the table of keys, in Markdown."""
    rows = []
    for key in KEYS:
        more = f" ({', '.join(key.words)})" if key.words else ""
        rows.append(f"| `{key.name}` | `{default_of(key)}` | {'' if key.live else 'yes'} | {key.text}{more} |\n")
    return "".join(rows)


def page() -> str:
    """The manual page."""
    lines = [
        f'.TH OCIRTD {SECTION} "" "ocirt"',
        ".SH NAME\nocirtd \\- run pods for a kubelet",
        ".SH SYNOPSIS\n.B ocirtd\n[\\fIflags\\fR] [\\fBconfig\\fR]",
        ".SH DESCRIPTION\nServe the CRI on a unix socket. With \\fBconfig\\fR, print what is in force and where each value"
        " comes from.\n.PP\nSIGHUP reads the configuration again, whole or not at all. SIGTERM ends it; containers go on.",
        ".SH FLAGS\nThey count more than the file.",
        *(
            f".TP\n\\fB\\-\\-{_text(name.replace('_', '-'))}\\fR \\fIvalue\\fR\n{_text(BY_NAME[name].text)}"
            for name in config.FLAGS
        ),
        ".TP\n\\fB\\-\\-config\\fR \\fIfile\\fR\nthe configuration",
        ".SH CONFIGURATION\nTOML. A key that does not exist is an error.",
    ]
    for key in KEYS:
        more = f"; one of {', '.join(key.words)}" if key.words else ""
        restart = "" if key.live else "; it takes a restart"
        lines.append(f".TP\n.B {_text(key.name)}\n{_text(f'{key.text}{more}{restart} (default: {default_of(key)})')}")
    for head, texts in (("FILES", _FILES), ("EXIT STATUS", _STATUSES)):
        lines += [f".SH {head}", *(f".TP\n.B {_text(name)}\n{_text(text)}" for name, text in texts.items())]
    lines.append(f".SH SEE ALSO\n.BR ocirt ({SECTION}),\n.BR crictl (1)")
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """Plain text: hyphens that are typed, backslashes, and no line that is taken for a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text
