"""One call of a plugin: the environment and the configuration, read and checked (SPEC.md, "Parameters")."""

from __future__ import annotations

from ocirt_cni import versions
from ocirt_cni.errors import INCOMPATIBLE_VERSION, INVALID_CONFIG, INVALID_ENVIRONMENT, Error
from ocirt_cni.results import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

ADD, DEL, CHECK, GC, STATUS, VERSION = "ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"
COMMANDS = (ADD, DEL, CHECK, GC, STATUS, VERSION)
_OF_A_CONTAINER = (ADD, DEL, CHECK)
_NAME_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME_REST = _NAME_FIRST | frozenset("_.-")
_IFNAMSIZ = 16  # linux/if.h, with the null byte
# libcni of 2026 says the first, the specification the second.
_VALID = ("cni.dev/attachments", "cni.dev/valid-attachments")


class Attachment:
    """A container's interface on a network: the owner of all that an ADD makes."""

    __slots__ = ("container", "ifname", "network")

    def __init__(self, network: str, container: str, ifname: str) -> None:
        self.network = network
        self.container = container
        self.ifname = ifname

    def __str__(self) -> str:
        """As it stands in comments and aliases. The parts have no spaces."""
        return f"{self.network} {self.container} {self.ifname}"

    def __repr__(self) -> str:
        return f"Attachment({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Attachment) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @classmethod
    def parse(cls, text: str) -> Attachment | None:
        """From a comment; None if it is none of ours."""
        parts = text.split(" ")
        return cls(*parts) if len(parts) == 3 else None


class Call:
    """What a plugin is asked to do.

    command: one of COMMANDS
    container, netns, ifname: as CNI has them; "" where the command has none. `netns` is a path, and may be "" for DEL
    args: of CNI_ARGS, by key
    path: the directories of CNI_PATH
    conf: the plugin's own configuration, as it came
    link: of an IPAM plugin: the link in the host's namespace that the container is reached by, "" if the caller names none
    lazy: whoever calls is about to drop the network namespace, so that links in it need not be deleted (which blocks for 20 ms)
    """

    __slots__ = ("args", "command", "conf", "container", "ifname", "lazy", "link", "netns", "path", "previous", "version")

    def __init__(
        self,
        command: str,
        conf: dict[str, Any],
        *,
        container: str = "",
        netns: str = "",
        ifname: str = "",
        args: Mapping[str, str] | None = None,
        path: tuple[str, ...] = (),
        lazy: bool = False,
        link: str = "",
    ) -> None:
        """Checks all but what belongs to the plugin. Raises Error."""
        self.command = command
        self.conf = conf
        self.container = container
        self.netns = netns
        self.ifname = ifname
        self.args = dict(args or {})
        self.path = path
        self.lazy = lazy
        self.link = link
        self.version: str = field(conf, "cniVersion", str, versions.DEFAULT) or versions.DEFAULT
        versions.rank(self.version)
        self._check()
        previous = field(conf, "prevResult", dict, None)
        self.previous: Result | None = None if previous is None else Result.parse(previous, "/prevResult")

    def _check(self) -> None:
        if not self.network:
            raise Error(INVALID_CONFIG, "the network has no name", subject="/name")
        check_name(self.network, "/name", INVALID_CONFIG)
        if self.command in _OF_A_CONTAINER:
            check_name(self.container, "CNI_CONTAINERID")
            check_ifname(self.ifname, "CNI_IFNAME")
            if not self.netns and self.command != DEL:
                raise Error(INVALID_ENVIRONMENT, f"{self.command} needs it", subject="CNI_NETNS")
        for command, since in ((CHECK, versions.CHECK), (GC, versions.GC), (STATUS, versions.STATUS)):
            if self.command == command and not versions.at_least(self.version, since):
                raise Error(
                    INCOMPATIBLE_VERSION,
                    f"config version does not allow {command}",
                    subject="/cniVersion",
                    hint=f"{since} is the first that has it",
                )

    @property
    def network(self) -> str:
        """The network's name."""
        found: str = field(self.conf, "name", str, "")
        return found

    @property
    def type(self) -> str:
        """The plugin's name."""
        found: str = field(self.conf, "type", str, "")
        return found

    @property
    def attachment(self) -> Attachment:
        """Whom what is made belongs to."""
        return Attachment(self.network, self.container, self.ifname)

    @property
    def runtime(self) -> dict[str, Any]:
        """The values of capabilities (CONVENTIONS.md): runtimeConfig, with the fields' names as the conventions spell them."""
        found: dict[str, Any] = _spelled(field(self.conf, "runtimeConfig", dict, {}))
        return found

    @property
    def cni_args(self) -> dict[str, Any]:
        """The object `args.cni` of the configuration (CONVENTIONS.md, "args")."""
        found: dict[str, Any] = field(field(self.conf, "args", dict, {}), "cni", dict, {}, "/args")
        return found

    @property
    def valid(self) -> frozenset[tuple[str, str]]:
        """GC: (container, interface) of the attachments that are still there. Raises Error(INVALID_CONFIG)."""
        found = set()
        for key in _VALID:
            for number, one in enumerate(field(self.conf, key, list, [])):
                where = f"/{key.replace('/', '~1')}/{number}"
                if not isinstance(one, dict):
                    raise Error(INVALID_CONFIG, "this is not an object", subject=where)
                found.add((field(one, "containerID", str, "", where), field(one, "ifname", str, "", where)))
        return frozenset(found)

    def derived(self, conf: dict[str, Any], command: str = "") -> Call:
        """The same call with another configuration, and perhaps another command: of an IPAM plugin, or the next in a chain."""
        return Call(
            command or self.command,
            conf,
            container=self.container,
            netns=self.netns,
            ifname=self.ifname,
            args=self.args,
            path=self.path,
            lazy=self.lazy,
            link=self.link,
        )


# What is in the values of capabilities. containerd writes HostPort and IngressRate: Go's decoder takes any case.
_SPELLINGS = {
    name.lower(): name
    for name in (
        *("hostPort", "containerPort", "protocol", "hostIP"),
        *("subnet", "rangeStart", "rangeEnd", "gateway"),
        *("ingressRate", "ingressBurst", "egressRate", "egressBurst"),
        *("servers", "searches", "options"),
    )
}


def _spelled(value: Any) -> Any:
    if isinstance(value, list):
        return [_spelled(one) for one in value]
    if isinstance(value, dict):
        return {_SPELLINGS.get(key.lower(), key): _spelled(one) for key, one in value.items()}
    return value


_KINDS: dict[type, str] = {str: "a string", int: "a number", bool: "true or false", dict: "an object", list: "a list"}


def field(conf: Mapping[str, Any], name: str, kind: type, default: Any, where: str = "") -> Any:
    """A field of a configuration that has to be of a kind; null counts as absent, as in Go. `where`: the pointer of `conf`.

    Raises Error(INVALID_CONFIG) that names the field.
    """
    value = conf.get(name)
    if value is None:
        return default
    if type(value) is not kind:
        raise Error(
            INVALID_CONFIG, f"this is not {_KINDS[kind]}", subject=f"{where}/{name.replace('~', '~0').replace('/', '~1')}"
        )
    return value


def check_name(text: str, subject: str, code: int = INVALID_ENVIRONMENT) -> None:
    """The form of names of networks and containers. Raises Error."""
    if not text:
        raise Error(code, "it is missing", subject=subject)
    if text[0] not in _NAME_FIRST or not _NAME_REST.issuperset(text):
        hint = "letters, digits, and after the first one also . _ -"
        raise Error(code, f"{text!r} is not a name", subject=subject, hint=hint)


def check_ifname(text: str, subject: str, code: int = INVALID_ENVIRONMENT) -> None:
    """The form of names of interfaces (linux/net/core/dev.c, dev_valid_name). Raises Error."""
    if not text:
        raise Error(code, "it is missing", subject=subject)
    if len(text.encode()) >= _IFNAMSIZ:
        raise Error(code, f"{text!r} has more than {_IFNAMSIZ - 1} bytes", subject=subject)
    if text in (".", "..") or any(char in "/:" or char.isspace() or char == "\0" for char in text):
        raise Error(code, f"{text!r} cannot be the name of an interface", subject=subject)


def parse_args(text: str) -> dict[str, str]:
    """CNI_ARGS: `KEY=VALUE;…`. Raises Error(INVALID_ENVIRONMENT)."""
    found = {}
    for pair in text.split(";") if text else ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise Error(INVALID_ENVIRONMENT, f"{pair!r} is not KEY=VALUE", subject="CNI_ARGS")
        found[key] = value
    return found


def from_environment(environment: Mapping[str, str], conf: dict[str, Any]) -> Call:
    """The call that a plugin's environment and input describe. Raises Error."""
    command = environment.get("CNI_COMMAND", "")
    if command not in COMMANDS:
        raise Error(INVALID_ENVIRONMENT, f"{command!r} is none of {', '.join(COMMANDS)}", subject="CNI_COMMAND")
    of_a_container = command in _OF_A_CONTAINER
    return Call(
        command,
        conf,
        container=environment.get("CNI_CONTAINERID", "") if of_a_container else "",
        netns=environment.get("CNI_NETNS", "") if of_a_container else "",
        ifname=environment.get("CNI_IFNAME", "") if of_a_container else "",
        args=parse_args(environment.get("CNI_ARGS", "")),
        path=tuple(one for one in environment.get("CNI_PATH", "").split(":") if one),
    )
