"""The command `ocirtd`: the daemon itself, and `ocirtd config`."""

from __future__ import annotations

import sys

import ocirt
from ocirt.errors import Error
from ocirt.spec.names import nearest
from ocirt_cri import config
from ocirt_cri.keys import BY_NAME

NAME = "ocirtd"
USAGE = """\
Usage: ocirtd [--config FILE] [--root DIR] [--state DIR] [--listen unix://PATH] [--image-root DIR]
              [--log-level LEVEL] [--log-format FORMAT]
       ocirtd [the same] config

Serve the CRI, for a kubelet and crictl. `config` prints what is in force and where each value comes from, and ends.

  --config FILE         the configuration (default: /etc/ocirt/ocirtd.toml, if it is there)
{flags}
  --help, --version     print this, or the version
"""
_USAGE_ERROR = 2


def usage() -> str:
    """What --help prints."""
    words = {"root": "DIR", "state": "DIR", "listen": "unix://PATH", "image_root": "DIR", "log_level": "LEVEL"}
    lines = []
    for name in config.FLAGS:
        key = BY_NAME[name]
        flag = f"--{name.replace('_', '-')} {words.get(name, 'FORMAT')}"
        more = f" ({', '.join(key.words)})" if key.words else ""
        lines.append(f"  {flag:<21} {key.text}{more}")
    return USAGE.format(flags="\n".join(lines))


def main(args: list[str]) -> int:
    """Run the command; its exit status: 0, 1 for any failure, 2 for a command line or a configuration that is wrong."""
    try:
        return _main(args)
    except Error as err:
        sys.stderr.write(f"{NAME}: {err}\n")
        return _USAGE_ERROR if err.code == "usage" else 1


def _main(args: list[str]) -> int:
    flags, place, words = _read(args)
    if "help" in flags:
        sys.stdout.write(usage())
        return 0
    if "version" in flags:
        sys.stdout.write(f"{NAME} {ocirt.__version__}\n")
        return 0
    if words not in ([], ["config"]):
        near = nearest(words[0], ("config",))
        hint = f"did you mean {near!r}?" if near else "see ocirtd --help"
        raise Error("usage", f"there is no verb {words[0]!r}", hint=hint)
    found = config.load(place, flags)
    if words:
        sys.stdout.write(config.text(found))
        return 0
    from ocirt_cri import daemon  # noqa: PLC0415  (grpc takes a moment, and may be missing)

    status: int = daemon.run(found, lambda: config.load(place, flags))
    return status


def _read(args: list[str]) -> tuple[dict[str, str], str | None, list[str]]:
    """Flags by the keys that they set, the configuration's file, and words. Raises Error."""
    flags: dict[str, str] = {}
    place: str | None = None
    words: list[str] = []
    names = {name.replace("_", "-"): name for name in (*config.FLAGS, "config")}
    left = list(args)
    while left:
        arg = left.pop(0)
        if arg in ("--help", "-h"):
            return {"help": ""}, None, []
        if arg in ("--version", "-v"):
            return {"version": ""}, None, []
        if not arg.startswith("-"):
            words.append(arg)
            continue
        flag, given, value = arg.lstrip("-").partition("=")
        if flag not in names:
            near = nearest(flag, tuple(names))
            raise Error("usage", f"there is no flag {arg!r}", hint=f"did you mean --{near}?" if near else "see ocirtd --help")
        if not given:
            if not left:
                raise Error("usage", "needs a value", subject=f"--{flag}", hint="see ocirtd --help")
            value = left.pop(0)
        if flag == "config":
            place = value
        else:
            flags[names[flag]] = value
    return flags, place, words
