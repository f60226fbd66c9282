"""The command `ocirt-csi`: the driver itself, and verbs for a person."""

from __future__ import annotations

import difflib
import os
import sys

from ocirt_csi.cli.verbs import VERBS
from ocirt_csi.config import BACK_ENDS, KEYS, load
from ocirt_csi.errors import Error

NAME = "ocirt-csi"
_HEAD = """\
Usage: ocirt-csi [flags]
       ocirt-csi [flags] VERB ...

Serve local volumes by CSI, for a kubelet and its sidecars. With a verb, look at them or change them.

"""
_USAGE_ERROR = 2
_BOOLEAN = ("json", "dry-run")


def usage() -> str:
    """What --help prints."""
    lines = [
        (
            "--pool DIR[,class=NAME][,backend=KIND][,over=FACTOR][,vg=GROUP[,thin=POOL]]",
            f"a folder for volumes; several times for several classes; {', '.join(BACK_ENDS)}",
        ),
        *((f"--{name.replace('_', '-')} {word}", text) for name, (word, text) in KEYS.items()),
        ("--config FILE", "the configuration (default: /etc/ocirt/csi.toml, if it is there)"),
        ("--help, --version", "print this, or the version"),
    ]
    flags = "".join(f"  {flag:<30}{text}\n" if len(flag) < 30 else f"  {flag}\n{'':32}{text}\n" for flag, text in lines)
    verbs = "".join(f"  {verb.usage}\n{'':32}{verb.text}\n" for verb in VERBS.values())
    return f"{_HEAD}Flags:\n{flags}\nVerbs:\n{verbs}"


def main(args: list[str], version: str = "0") -> int:
    """Run the command; its exit status: 0, 1 for any failure, 2 for a command line or a configuration that is wrong."""
    try:
        return _main(args, version)
    except Error as err:
        sys.stderr.write(f"{NAME}: {err}\n")
        return _USAGE_ERROR if err.code == "usage" else 1
    except OSError as err:
        sys.stderr.write(f"{NAME}: {err.filename or 'the system'}: {err.strerror}\n")
        return 1
    except BrokenPipeError:
        return 1


def _main(args: list[str], version: str) -> int:
    flags, words = _read(args)
    if "help" in flags:
        sys.stdout.write(usage())
        return 0
    if "version" in flags:
        sys.stdout.write(f"{NAME} {version}\n")
        return 0
    settings = {name: values[-1] for name, values in flags.items() if name in KEYS}
    place = flags.get("config", [None])[-1]
    config = load(settings, flags.get("pool", []), place=place, environment=os.environ, version=version)
    own = {name: values[-1] for name, values in flags.items() if name not in (*KEYS, "config", "pool")}
    if not words:
        if own:
            raise Error("usage", f"--{min(own)} goes with a verb", hint="see ocirt-csi --help")
        from ocirt_csi import daemon  # noqa: PLC0415  (grpc takes a moment, and may be missing)

        return daemon.run(config)
    verb = VERBS.get(words[0])
    if verb is None:
        near = difflib.get_close_matches(words[0], VERBS, 1)
        hint = f"did you mean {near[0]!r}?" if near else "see ocirt-csi --help"
        raise Error("usage", f"there is no verb {words[0]!r}", hint=hint)
    return verb.run(config, words[1:], own)


def _read(args: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Flags with all their values, by names as the configuration has them, and words. Raises Error("usage")."""
    flags: dict[str, list[str]] = {}
    words: list[str] = []
    known = {name.replace("_", "-"): name for name in (*KEYS, "config", "pool", "size", "class", "fs-type", "from")}
    left = list(args)
    while left:
        arg = left.pop(0)
        if arg in ("--help", "-h"):
            return {"help": []}, []
        if arg in ("--version", "-v"):
            return {"version": []}, []
        if not arg.startswith("-"):
            words.append(arg)
            continue
        flag, given, value = arg.lstrip("-").partition("=")
        if flag in _BOOLEAN and not given:
            flags[flag] = [""]
            continue
        if flag not in known:
            near = difflib.get_close_matches(flag, [*known, *_BOOLEAN], 1)
            raise Error(
                "usage", f"there is no flag {arg!r}", hint=f"did you mean --{near[0]}?" if near else "see ocirt-csi --help"
            )
        if not given:
            if not left:
                raise Error("usage", "needs a value", subject=f"--{flag}", hint="see ocirt-csi --help")
            value = left.pop(0)
        flags.setdefault(known[flag], []).append(value)
    return flags, words
