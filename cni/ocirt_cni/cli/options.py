"""The command line: which verbs there are, their flags, and what the environment says (cnitool's variables)."""

from __future__ import annotations

import os

from ocirt_cni.call import parse_args
from ocirt_cni.errors import INVALID_ENVIRONMENT, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Each verb's module is ocirt_cni.cli.<verb>, with _ for -: (summary, arguments, fewest, most or -1, flags, more about it).
# A flag is a word: its name, perhaps `,` and a short one, and a sign: none for a switch, `=` for a value, `*` for many values.
VERBS: dict[str, tuple[str, str, int, int, str, str]] = {
    "add": (
        "attach a network namespace to a network",
        "<network> <netns>",
        2,
        2,
        "",
        "The result of the network's plugins goes to the standard output. What fails is undone.",
    ),
    "check": ("check that an attachment is as it was made", "<network> <netns>", 2, 2, "", ""),
    "check-config": (
        "say all that is wrong with networks' configurations",
        "[file or folder]",
        0,
        1,
        "json",
        "One finding a line: where it is, what is wrong, what would be right. The exit status is 1 if there is an error.",
    ),
    "completion": ("print what a shell needs to complete the command line", "<bash, zsh or fish>", 1, 1, "", ""),
    "del": (
        "undo an attachment",
        "<network> <netns>",
        2,
        2,
        "",
        "No error if it is gone. If the network's file is gone too, the configuration that it was attached with is taken.",
    ),
    "dhcp": (
        "run the daemon that keeps leases of the plugin dhcp",
        "[daemon options...]",
        0,
        -1,
        "",
        "Its options: ocirt-cni dhcp --help",
    ),
    "gc": (
        "undo what belongs to attachments that are gone",
        "<network> [netns]",
        1,
        2,
        "keep,k* keep-live",
        "Without a flag every attachment counts as gone, as with cnitool; the namespace is taken and left aside.",
    ),
    "list": ("list the networks of the configuration folder", "", 0, 0, "json", ""),
    "manual": ("print the manual page", "", 0, 0, "", "It is in the man(7) language: ocirt-cni manual | man -l -"),
    "plugins": (
        "the executables of the plugins, for other runtimes",
        "list [folder]  || install <folder> [plugin...]  || remove <folder> [plugin...]",
        1,
        -1,
        "copy force,f json",
        "install makes links to this command, or copies. What is not ours is left alone.",
    ),
    "reload": ("restore the firewall's rules after somebody flushed them", "", 0, 0, "", ""),
    "show": ("show attachments with their addresses, ports and rules", "[network]", 0, 1, "json", ""),
    "status": ("say whether a network can take attachments", "<network> [netns]", 1, 2, "", ""),
}
# What follows these is another program's.
RAW = ("dhcp",)
GLOBAL = "cache-dir= config-dir= help,h ifname,i= plugin-path= version,v"
FLAGS = {
    "cache-dir": 'folder of what is attached (default: "/var/lib/cni")',
    "config-dir": 'folder of networks (default: NETCONFPATH, or "/etc/cni/net.d")',
    "copy": "copy the command instead of linking to it",
    "force": "replace files that are not ours as well",
    "help": "show help",
    "ifname": 'the name of the interface (default: CNI_IFNAME, or "eth0")',
    "json": "print JSON",
    "keep": "an attachment that is not gone: CONTAINER/INTERFACE; many times",
    "keep-live": "keep attachments whose network namespace is there",
    "plugin-path": "folders of plugins (default: CNI_PATH); those that are nowhere are ours",
    "version": "print the versions of CNI that are supported",
}
VARIABLES = {
    "NETCONFPATH": "folder of networks",
    "CNI_PATH": "folders of plugins, with colons",
    "CNI_ARGS": "arguments for the plugins: KEY=VALUE;...",
    "CAP_ARGS": "values of capabilities, as a JSON object",
    "CNI_IFNAME": "the name of the interface",
}


class Options:
    """What the command line said: the verb, its flags by `get`, its arguments."""

    __slots__ = ("_values", "arguments", "verb")

    def __init__(self, verb: str, arguments: list[str], values: dict[str, Any]) -> None:
        self.verb = verb
        self.arguments = arguments
        self._values = values

    def get(self, flag: str) -> Any:
        """The value of a flag by its long name; None if it was not given."""
        return self._values.get(flag)

    @property
    def folder(self) -> str:
        """The folder of networks."""
        from ocirt_cni.runner import lists  # noqa: PLC0415  (not every verb has one)

        return self.get("config-dir") or os.environ.get("NETCONFPATH") or lists.FOLDER

    @property
    def path(self) -> tuple[str, ...]:
        """The folders of plugins."""
        text = self.get("plugin-path")
        text = os.environ.get("CNI_PATH", "") if text is None else text
        return tuple(one for one in text.split(":") if one)

    @property
    def cache(self) -> str:
        """The folder of what is attached; "" for the default."""
        return self.get("cache-dir") or ""

    @property
    def ifname(self) -> str:
        """The name of the interface."""
        return self.get("ifname") or os.environ.get("CNI_IFNAME") or "eth0"


def args_of_environment() -> tuple[tuple[str, str], ...] | None:
    """CNI_ARGS; None if there are none. Raises Error(INVALID_ENVIRONMENT)."""
    text = os.environ.get("CNI_ARGS", "")
    return tuple(parse_args(text).items()) if text else None


def capabilities_of_environment() -> dict[str, Any] | None:
    """CAP_ARGS; None if there are none. Raises Error."""
    from ocirt_cni import jsonio  # noqa: PLC0415

    text = os.environ.get("CAP_ARGS", "")
    return jsonio.load_object(text.encode(errors="surrogateescape"), "CAP_ARGS") if text else None


def words(flags: str) -> dict[str, tuple[str, str]]:
    """A line of flags: (long name, kind) by each name."""
    found = {}
    for word in flags.split():
        kind = word[-1] if word[-1] in "=*" else ""
        name, _, short = word.removesuffix(kind).partition(",")
        found[name] = (name, kind)
        if short:
            found[short] = (name, kind)
    return found


def parse(flags: str, args: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Split arguments into the values of flags, by long names, and the rest. Flags may stand anywhere before `--`.

    Raises Error(INVALID_ENVIRONMENT).
    """
    known = words(flags)
    values: dict[str, Any] = {}
    rest: list[str] = []
    queue = list(args)
    while queue:
        arg = queue.pop(0)
        if arg == "--":
            return values, rest + queue
        if len(arg) < 2 or arg[0] != "-":
            rest.append(arg)
            continue
        flag, equals, value = arg.lstrip("-").partition("=")
        if flag not in known:
            raise Error(INVALID_ENVIRONMENT, f"there is no flag {arg.partition('=')[0]}", hint=_nearest(flag, known))
        name, kind = known[flag]
        if not kind:
            if equals:
                raise Error(INVALID_ENVIRONMENT, f"--{name} takes no value")
            values[name] = True
            continue
        if not equals:
            if not queue:
                raise Error(INVALID_ENVIRONMENT, f"--{name} needs a value")
            value = queue.pop(0)
        if kind == "*":
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    return values, rest


def _nearest(flag: str, known: dict[str, tuple[str, str]]) -> str:
    from ocirt_cni.cli.nearest import nearest  # noqa: PLC0415  (of no use without a mistake)

    found = nearest(flag, [name for name in known if len(name) > 1])
    return f"did you mean --{found}?" if found else ""
