"""What the values of flags and the arguments of verbs are: for completions and manuals, which are made from this and `options`.

Loaded by these alone; to run a verb needs none of it.
"""

from __future__ import annotations

from ocirt.cli import elsewhere, options
from ocirt.cli import help as texts
from ocirt.spec import capabilities, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    Kind = str | tuple[str, ...]

# Kinds of a value. A tuple of words is a kind too: one of these is meant.
ANY, NUMBER, FILE, DIRECTORY, CONTAINER, IMAGE = "value", "number", "file", "directory", "container", "image"

_SIGNALS = tuple(name.removeprefix("SIG") for name in signals.NUMBERS)
SHELLS = ("bash", "zsh", "fish")

# By name of the flag, wherever it stands; "VERB NAME" where that decides (nothing before the blank: the global flag). A test
# wants every flag here.
_VALUES: dict[str, Kind] = {
    "additional-gids": ANY,
    "apparmor": ANY,
    "bundle": DIRECTORY,
    "cap": capabilities.NAMES,
    "cgroup": ANY,
    "cgroup-manager": ("cgroupfs", "systemd", "disabled"),
    "config": FILE,
    "console-socket": FILE,
    "cpu-burst": NUMBER,
    "cpu-idle": ("0", "1"),
    "cpu-period": NUMBER,
    "cpu-quota": NUMBER,
    "cpu-rt-period": NUMBER,
    "cpu-rt-runtime": NUMBER,
    "cpu-share": NUMBER,
    "cpuset-cpus": ANY,
    "cpuset-mems": ANY,
    "cwd": ANY,
    "empty-ns": ("network",),
    "entrypoint": ANY,
    "env": ANY,
    "format": ("table", "json"),
    "hostname": ANY,
    "image": IMAGE,
    "image-root": DIRECTORY,
    "image-path": DIRECTORY,
    "interval": ANY,
    "kernel-memory": ANY,
    "kernel-memory-tcp": ANY,
    "l3-cache-schema": ANY,
    "log": FILE,
    "log-format": ("text", "json"),
    "log-level": ("error", "warning", "info", "debug"),
    "lsm-mount-context": ANY,
    "lsm-profile": ANY,
    "manage-cgroups-mode": ("soft", "full", "strict", "ignore"),
    "mem-bw-schema": ANY,
    "memory": ANY,
    "memory-reservation": ANY,
    "memory-swap": ANY,
    "name": ANY,
    "network": ("none", "host"),
    "page-server": ANY,
    "parent-path": DIRECTORY,
    "pid-file": FILE,
    "pidfd-socket": FILE,
    "process": FILE,
    "process-label": ANY,
    "resources": FILE,
    "root": DIRECTORY,
    " rootless": ("true", "false", "auto"),
    "size": ANY,
    "trace": FILE,
    "user": ANY,
    "work-path": DIRECTORY,
}
# By what stands in the usage lines of the help.
_ARGUMENTS: dict[str, Kind] = {
    "bundle": DIRECTORY,
    "command": ANY,
    "container-id": CONTAINER,
    "directory": DIRECTORY,
    "profile": ANY,
    "rootfs": DIRECTORY,
    "shell": SHELLS,
    "signal": _SIGNALS,
    "verb": tuple(texts.flag_lines()),
}
# Their container is a new one.
_NEW = ("create", "restore", "run")
_HELP = ("help,h", "show help")


class Flag:
    """A flag: its long `name`, `alias` ("" for none), `kind` of its value ("" for a switch), whether it `repeats`, its `text`."""

    __slots__ = ("alias", "kind", "name", "repeats", "text")

    def __init__(self, verb: str, word: str, text: str) -> None:
        self.name, self.alias, sign = options.split_word(word)
        self.text = text
        self.repeats = sign == "*"
        self.kind: Kind = ""
        if sign == "#":
            self.kind = NUMBER
        elif sign:
            kinds = elsewhere.kinds()[0] if verb in elsewhere.VERBS else _VALUES
            self.kind = kinds.get(f"{verb} {self.name}") or kinds[self.name]

    def forms(self) -> list[str]:
        """As it may be written: `--name`, `-n`."""
        return ["--" + self.name] + (["-" + self.alias] if self.alias else [])


def flags(verb: str) -> list[Flag]:
    """The flags of a verb with --help, or the global ones for "". Raises KeyError for a value of which nothing is said above."""
    line = texts.flag_lines()[verb][2] if verb else options.GLOBAL
    found = [Flag(verb, word, texts.flag_text(verb, options.split_word(word)[0])) for word in line.split()]
    return found if any(flag.name == "help" for flag in found) else [*found, Flag(verb, *_HELP)]


def arguments(verb: str) -> list[Kind]:
    """The kinds of a verb's arguments in their order, from its usage line."""
    found: list[Kind] = []
    kinds = elsewhere.kinds()[1] if verb in elsewhere.VERBS else _ARGUMENTS
    for word in texts.verbs()[verb][1].partition(" || ")[0].split():
        name = word.strip("[]").removesuffix("...").strip("<>")
        if name in kinds:
            found.append(ANY if name == "container-id" and verb in _NEW else kinds[name])
    if verb == "run":
        found[0] = DIRECTORY  # `run BUNDLE/`: of the two forms the one that can be completed
    return found


def repeats(verb: str) -> bool:
    """Whether the last of a verb's arguments may be given many times."""
    return verb in elsewhere.VERBS and texts.verbs()[verb][1].rstrip("]").endswith("...")


def unused() -> set[str]:
    """What is said above of flags that no verb has."""
    there = {f"{verb} {flag.name}" for verb in ("", *texts.flag_lines()) for flag in flags(verb) if flag.kind}
    names = {key.partition(" ")[2] for key in there}
    return {key for key in _VALUES | elsewhere.kinds()[0] if key not in (there if " " in key else names)}
