"""The manual page of `ocirt-csi` in the man(7) language, made from the tables of flags and verbs."""

from __future__ import annotations

from ocirt_csi.cli.verbs import VERBS
from ocirt_csi.config import KEYS, PLACE

SECTION = 8
_POOL = (
    "a folder for volumes; several times for several classes. backend: auto, btrfs, project, tmpfs, loop or lvm; over: how"
    " many times its space it may promise (default: 1); vg: the volume group that holds its data, of which the folder then has"
    " the notes; thin: a thin pool in that group"
)
_FILES = {
    PLACE: "the configuration: the flags' names with _ for -, and [[pools]] with directory, class, backend, over, vg, thin",
    "/run/ocirt/csi.sock": "the driver's socket",
    "/var/lib/ocirt/csi": "what it must not forget",
}
_STATUSES = {"0": "it was told to end, or the verb did what it says", "1": "any failure", "2": "a command line that is wrong"}


def page() -> str:
    """The manual page."""
    lines = [
        f'.TH OCIRT\\-CSI {SECTION} "" "ocirt"',
        ".SH NAME\nocirt\\-csi \\- local volumes for a kubelet",
        ".SH SYNOPSIS\n.B ocirt\\-csi\n[\\fIflags\\fR] [\\fIverb\\fR ...]",
        ".SH DESCRIPTION\nServe the Container Storage Interface on a unix socket. With a verb, look at volumes or change"
        " them: beside the driver, or without one.",
        ".SH FLAGS\nThey count more than the environment, and that more than the file.",
        f".TP\n\\fB\\-\\-pool\\fR \\fIDIR[,class=NAME][,backend=KIND][,over=FACTOR][,vg=GROUP[,thin=POOL]]\\fR\n{_text(_POOL)}",
    ]
    for name, (word, text) in KEYS.items():
        lines.append(f".TP\n\\fB\\-\\-{_text(name.replace('_', '-'))}\\fR \\fI{_text(word)}\\fR\n{_text(text)}")
    lines.append(f".TP\n\\fB\\-\\-config\\fR \\fIFILE\\fR\nthe configuration (default: {_text(PLACE)}, if it is there)")
    lines.append(".SH VERBS")
    lines += [f".TP\n.B {_text(verb.usage)}\n{_text(verb.text)}" for verb in VERBS.values()]
    for head, texts in (("FILES", _FILES), ("EXIT STATUS", _STATUSES)):
        lines += [f".SH {head}", *(f".TP\n.B {_text(name)}\n{_text(text)}" for name, text in texts.items())]
    lines.append(f".SH SEE ALSO\n.BR ocirt ({SECTION}),\n.BR ocirtd ({SECTION})")
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """Plain text: hyphens that are typed, backslashes, and no line that is taken for a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text
