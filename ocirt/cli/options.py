"""Flags as Go's `flag` package and runc's command line read them: `-x v`, `--x v`, `--x=v`, and one dash before a long name.

A verb's flags are one line of words. A word is the flag's name, perhaps `,` and an alias, and a sign for its kind: none for a
switch, `=` for a string, `#` for an integer, `*` for a string that may be given many times.
"""

from __future__ import annotations

from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

GLOBAL = "debug log= log-format= log-level= root= image-root= systemd-cgroup rootless= cgroup-manager= help,h version,v"
_CRIU = (
    "image-path= work-path= tcp-established ext-unix-sk shell-job file-locks manage-cgroups-mode= empty-ns* auto-dedup lazy-pages"
)
_CREATE = "bundle,b= config,f= console-socket= pidfd-socket= pid-file= no-pivot no-new-keyring preserve-fds# no-subreaper"

# What is to be different from what an image says (ocirt_images.bundle.Options).
_IMAGE = "cwd= entrypoint= env,e* hostname= network= no-new-privs read-only size= tty,t user,u="

# Each verb's module is ocirt.cli.<verb>. (fewest positional arguments, most or -1, flags)
VERBS: dict[str, tuple[int, int, str]] = {
    "apparmor": (0, 1, "load"),
    "bundle": (1, -1, f"mount rootless writable {_IMAGE}"),
    "check": (0, 1, "bundle,b= config,f= json"),
    "checkpoint": (
        1,
        1,
        _CRIU + " parent-path= leave-running tcp-skip-in-flight link-remap status-fd# page-server= pre-dump",
    ),
    "completion": (1, 1, ""),
    "create": (1, 1, _CREATE),
    "delete": (1, 1, "force,f"),
    "exec": (
        1,
        -1,
        (
            "console-socket= pidfd-socket= cwd= env,e* tty,t user,u= additional-gids,g* process,p= detach,d pid-file= "
            "process-label= apparmor= no-new-privs cap,c* preserve-fds# cgroup* ignore-paused"
        ),
    ),
    "events": (1, 1, "interval= stats"),
    "features": (0, 0, ""),
    "kill": (1, 2, "all,a"),
    "list": (0, 0, "format,f= quiet,q"),
    "manual": (0, 1, ""),
    "pause": (1, 1, ""),
    "plan": (0, 1, "bundle,b= config,f= json"),
    "ps": (1, -1, "format,f="),
    "restore": (
        1,
        1,
        (_CRIU + " bundle,b= config,f= console-socket= pid-file= detach,d no-pivot no-subreaper lsm-profile= lsm-mount-context="),
    ),
    "resume": (1, 1, ""),
    "run": (1, 1, _CREATE + " detach,d keep trace="),
    "spec": (0, 0, "bundle,b= rootless"),
    "start": (1, 1, ""),
    "state": (1, 1, ""),
    "update": (
        1,
        1,
        (
            "resources,r= blkio-weight# cpu-period= cpu-quota= cpu-burst= cpu-share= cpu-rt-period= cpu-rt-runtime= cpu-idle= "
            "cpuset-cpus= cpuset-mems= kernel-memory= kernel-memory-tcp= memory= memory-reservation= memory-swap= pids-limit# "
            "l3-cache-schema= mem-bw-schema="
        ),
    ),
}
# `run` with --image: what follows is a command, whose flags are its own.
RUN_IMAGE = (0, -1, f"{VERBS['run'][2]} image= name= {_IMAGE}")
# Their flags end at the first positional argument: what follows belongs to another program.
_NO_REORDER = ("bundle", "exec", "ps")

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


class Options:
    """What the command line said: the global flags as attributes, the verb's flags by `get`.

    name: what the program was called by (`ocirt`, `runc`)
    log: absolute path of the log file, or "" for standard error; log_format: "text" or "json"
    verb: the verb, once its own flags were read
    cgroup_manager: "cgroupfs", "systemd" or "disabled"
    rootless: True, False, or None for `auto`
    root_given: whether --root was given; `root` is the state directory in either case
    image_root: absolute path of the store of images that was asked for, or ""
    settled: called by a floor's verb once this process may have threads
    """

    __slots__ = (
        "_flags",
        "_root",
        "_values",
        "cgroup_manager",
        "debug",
        "image_root",
        "log",
        "log_format",
        "name",
        "root_given",
        "rootless",
        "settled",
        "verb",
    )

    def __init__(self, name: str = "ocirt") -> None:
        self.name = name
        self.verb = ""
        self.debug = False
        self.log = ""
        self.log_format = "text"
        self.cgroup_manager = "cgroupfs"
        self.rootless: bool | None = None
        self.root_given = False
        self.image_root = ""
        self.settled: Callable[[], None] = _nothing
        self._root = ""
        self._flags = ""
        self._values: dict[str, Any] = {}

    @property
    def root(self) -> str:
        """The absolute path of the state directory; it need not exist."""
        if not self._root:
            from ocirt import state  # noqa: PLC0415

            self._root = state.default_root()
        return self._root

    @property
    def systemd_cgroup(self) -> bool:
        """Whether cgroups are to be made by systemd."""
        return self.cgroup_manager == "systemd"

    def get(self, flag: str) -> Any:
        """The value of one of the verb's flags, by its long name: bool, str, int or list of str, by the flag's kind.

        A flag that was not given is False, "", 0 or an empty list. Raises KeyError for a flag that the verb does not have.
        """
        if flag in self._values:
            return self._values[flag]
        for word in self._flags.split():
            name, _, kind = split_word(word)
            if name == flag:
                return {"": False, "=": "", "#": 0, "*": []}[kind]
        raise KeyError(flag)

    def given(self, flag: str) -> bool:
        """Whether the verb's flag stood on the command line."""
        return flag in self._values

    def set_globals(self, values: dict[str, Any]) -> None:
        """Take over the global flags' values. Raises Error("usage") for one that says nothing known."""
        self.debug = values.get("debug", False)
        level = values.get("log-level")
        if level is not None:
            if level not in ("debug", "info", "warning", "warn", "error"):
                raise Error("usage", f"invalid log-level: {level}")
            self.debug = self.debug or level == "debug"
        log_format = values.get("log-format", "text")
        if log_format not in ("text", "json", ""):
            raise Error("usage", f"invalid log-format: {log_format}")
        self.log_format = log_format or "text"
        log = values.get("log", "")
        if log.startswith(("journald:", "syslog:")):
            raise Error("unsupported", f"log {log}: not supported yet", hint="give a file")
        log = log.removeprefix("file:")
        if log:
            self.log = _absolute(log)
        if values.get("root"):
            self._root = _absolute(values["root"])
            self.root_given = True
            if self._root == "/":
                raise Error("usage", "Option --root argument should not be set to /")
        if values.get("image-root"):
            self.image_root = _absolute(values["image-root"])
        self.cgroup_manager = values.get("cgroup-manager") or "cgroupfs"
        if self.cgroup_manager not in ("cgroupfs", "systemd", "disabled"):
            raise Error("usage", f"invalid cgroup-manager: {self.cgroup_manager}", hint="cgroupfs, systemd or disabled")
        if values.get("systemd-cgroup"):
            self.cgroup_manager = "systemd"
        rootless = values.get("rootless", "auto")
        if rootless not in ("auto", ""):
            if rootless not in _TRUE and rootless not in _FALSE:
                raise Error("usage", f"invalid rootless: {rootless}", hint="true, false or auto")
            self.rootless = rootless in _TRUE

    def set(self, flag: str, value: Any) -> None:
        """Go on as if the verb's flag had stood on the command line."""
        self._values[flag] = value

    def set_verb(self, verb: str, flags: str, values: dict[str, Any]) -> None:
        """Take over the verb, its line of flags, and the values that `parse` found for them."""
        self.verb = verb
        self._flags = flags
        self._values = values


def _nothing() -> None:
    pass


def split_word(word: str) -> tuple[str, str, str]:
    """One word of a flag line as (name, alias or "", kind)."""
    kind = word[-1] if word[-1] in "=#*" else ""
    name, _, alias = (word[:-1] if kind else word).partition(",")
    return name, alias, kind


def parse(flags: str, args: list[str], *, reorder: bool) -> tuple[dict[str, Any], list[str]]:
    """Split `args` into flag values, keyed by the flags' long names, and positional arguments.

    With `reorder`, known flags are found behind positional arguments as well. A request for help ends the parsing: the values
    then hold "help". Raises Error("usage") with Go's texts.
    """
    known: dict[str, tuple[str, str]] = {"help": ("help", ""), "h": ("help", "")}
    for word in flags.split():
        name, alias, kind = split_word(word)
        known[name] = (name, kind)
        if alias:
            known[alias] = (name, kind)
    values: dict[str, Any] = {}
    rest: list[str] = []
    index = 0
    while index < len(args):
        arg = args[index]
        index += 1
        if len(arg) < 2 or arg[0] != "-":
            rest.append(arg)
            if reorder:
                continue
            break
        if arg == "--":
            if rest:
                rest.append(arg)
            break
        flag, equals, value = arg[2 if arg[1] == "-" else 1 :].partition("=")
        if flag not in known:
            if rest:  # only reached when reordering: what is no flag of ours is an argument
                rest.append(arg)
                continue
            if not flag or flag[0] == "-":
                raise Error("usage", f"bad flag syntax: {arg}")
            raise Error("usage", f"flag provided but not defined: -{flag}")
        name, kind = known[flag]
        if not kind:
            if equals and value not in _TRUE and value not in _FALSE:
                raise Error("usage", f"invalid boolean value {_quoted(value)} for -{flag}: parse error")
            values[name] = not equals or value in _TRUE
            if name == "help" and values[name]:
                return values, rest
            continue
        if not equals:
            if index == len(args):
                raise Error("usage", f"flag needs an argument: -{flag}")
            value = args[index]
            index += 1
        if kind == "*":
            values.setdefault(name, []).append(value)
        elif kind == "#":
            values[name] = _integer(flag, value)
        else:
            values[name] = value
    return values, rest + args[index:]


def has_image(args: list[str]) -> bool:
    """Whether `--image` stands among the arguments of `run`."""
    for arg in args:
        if arg == "--":
            break
        if arg.startswith(("--image", "-image")) and arg.lstrip("-").partition("=")[0] == "image":
            return True
    return False


def reorders(verb: str) -> bool:
    """Whether the verb's flags may stand behind its positional arguments."""
    return verb not in _NO_REORDER


def _absolute(path: str) -> str:
    """`paths.absolute`, without loading that module for a path that is absolute and clean, as callers' paths are."""
    if path.startswith("/") and "//" not in path and "/." not in path and not path.endswith("/"):
        return path
    from ocirt import paths  # noqa: PLC0415

    return paths.absolute(path)


def _integer(flag: str, value: str) -> int:
    """An integer as Go's strconv.ParseInt(value, 0, 64) takes it: 0x, 0o, 0b and a leading 0 for octal."""
    digits = value.lstrip("+-")
    octal = len(digits) > 1 and digits[0] == "0" and digits[1:].isdigit()
    try:
        number = int(value, 8 if octal else 0) if value == value.strip() and value.isascii() else None
    except ValueError:
        number = None
    if number is None:
        raise Error("usage", f"invalid value {_quoted(value)} for flag -{flag}: parse error")
    if not -(1 << 63) <= number < 1 << 63:
        raise Error("usage", f"invalid value {_quoted(value)} for flag -{flag}: value out of range")
    return number


def _quoted(value: str) -> str:
    from ocirt.cli import log  # noqa: PLC0415

    return log.quoted(value)
