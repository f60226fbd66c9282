"""The operations on a network: its plugins one after the other, as libcni runs them (SPEC.md, section 3).

Our plugins run in this process, and so does what they ask for addresses; others are executed. A `Runner` keeps nothing in memory
between two calls, and other processes may work on the same folders at the same time (see `locks`).
"""

from __future__ import annotations

from ocirt_cni import plugins, versions
from ocirt_cni.call import ADD, CHECK, DEL, GC, STATUS, Attachment, Call, check_ifname, check_name
from ocirt_cni.errors import INCOMPATIBLE_VERSION, INTERNAL, TAKEN, UNKNOWN_CONTAINER, Error
from ocirt_cni.netlink import links
from ocirt_cni.netns import Namespace
from ocirt_cni.results import Result
from ocirt_cni.runner import execute
from ocirt_cni.runner.cache import Cache, Entry
from ocirt_cni.runner.locks import Locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from ocirt_cni.runner.lists import Network

PATH = ("/opt/cni/bin",)
# The specification has the first, libcni of 2026 sends both.
_VALID = ("cni.dev/valid-attachments", "cni.dev/attachments")


class Endpoint:
    """Whom a network is for: a container's interface.

    container, netns, ifname: as CNI has them; `netns` may be "" for DEL
    args: CNI_ARGS; capabilities: the values of capabilities. None: as they were with ADD
    lazy: the caller drops the namespace right after DEL, so nothing in it need be deleted
    """

    __slots__ = ("args", "capabilities", "container", "ifname", "lazy", "netns")

    def __init__(
        self,
        container: str,
        netns: str = "",
        ifname: str = "eth0",
        *,
        args: Iterable[tuple[str, str]] | None = None,
        capabilities: Mapping[str, Any] | None = None,
        lazy: bool = False,
    ) -> None:
        self.container = container
        self.netns = netns
        self.ifname = ifname
        self.args = None if args is None else tuple(args)
        self.capabilities = None if capabilities is None else dict(capabilities)
        self.lazy = lazy

    def like(self, entry: Entry | None) -> Endpoint:
        """The same, with what was not given as it was with ADD."""
        if entry is None:
            return self
        return Endpoint(
            self.container,
            self.netns,
            self.ifname,
            args=entry.args if self.args is None else self.args,
            capabilities=entry.capabilities if self.capabilities is None else self.capabilities,
            lazy=self.lazy,
        )


class Runner:
    """Runs networks.

    path: the directories of CNI_PATH. folder: where attachments are remembered. timeout: seconds for one call of a foreign plugin
    """

    def __init__(self, path: Iterable[str] = PATH, folder: str = "", timeout: float = execute.TIMEOUT) -> None:
        self.path = tuple(path)
        self.cache = Cache(folder) if folder else Cache()
        self.timeout = timeout
        self._locks = Locks(self.cache.own)

    def add(self, network: Network, endpoint: Endpoint) -> Result:
        """ADD: the last plugin's result. What fails is undone, by all plugins. Raises Error."""
        attachment = _attachment(network, endpoint)
        with self._locks.attachment(network.name, endpoint.container):
            self._forget_stale(network, attachment)
            result: Result | None = None
            try:
                for number in range(len(network.plugins)):
                    result = self._call(network, number, ADD, endpoint, result) or Result()
                assert result is not None, "there is a plugin at least"
                self._remember(network, attachment, endpoint, result)
            except BaseException as err:
                failures = self._undo(network, endpoint, result)
                self.cache.remove(attachment)
                if failures and isinstance(err, Error):
                    raise _joined([err, *failures], "undoing it failed too") from err
                raise
            return result

    def delete(self, network: Network, endpoint: Endpoint) -> None:
        """DEL, in reverse, with the result of ADD if it is known. Goes on after a failure. Raises the first Error."""
        attachment = _attachment(network, endpoint)
        with self._locks.attachment(network.name, endpoint.container):
            self._delete(network, attachment, endpoint)

    def check(self, network: Network, endpoint: Endpoint) -> None:
        """CHECK, unless the network says that it must not be. Raises the first Error."""
        attachment = _attachment(network, endpoint)
        if not versions.at_least(network.version, versions.CHECK):
            hint = f"{versions.CHECK} is the first that has it"
            raise Error(INCOMPATIBLE_VERSION, f"version {network.version} has no CHECK", subject=network.name, hint=hint)
        if network.disable_check:
            return
        with self._locks.attachment(network.name, endpoint.container):
            entry = self.cache.find(attachment)
            if entry is None:
                hint = f"nothing is known in {self.cache.folder}/results; add it first"
                raise Error(UNKNOWN_CONTAINER, f"{endpoint.ifname} of it was not added", subject=endpoint.container, hint=hint)
            result = entry.parsed()
            for number in range(len(network.plugins)):
                self._call(network, number, CHECK, endpoint.like(entry), result)

    def gc(self, network: Network, valid: Iterable[tuple[str, str]] | None) -> None:
        """GC: undo what belongs to attachments that are not in `valid`, (container, interface) each. None: to all.

        First DEL of those that are known, then GC by each plugin. Goes on after a failure. Raises Error that holds all.
        """
        if network.disable_gc:
            return
        kept = None if valid is None else frozenset(valid)
        failures: list[Error] = []
        with self._locks.network(network.name):
            for entry in self.cache.attachments(network=network.name):
                one = entry.attachment
                if (one.container, one.ifname) not in (kept or ()):
                    endpoint = Endpoint(one.container, entry.netns, one.ifname)
                    with self._locks.container(one.container):
                        _collect(failures, self._delete, network, one, endpoint)
            _collect(failures, self.cache.sweep, network.name)
            if versions.at_least(network.version, versions.GC):
                more: dict[str, Any] = {}
                if kept is not None:
                    listed = [{"containerID": container, "ifname": ifname} for container, ifname in sorted(kept)]
                    more = dict.fromkeys(_VALID, listed)
                for number in range(len(network.plugins)):
                    _collect(failures, self._call, network, number, GC, None, None, more)
        if failures:
            raise _joined(failures, "")

    def status(self, network: Network) -> None:
        """STATUS of each plugin. Raises the first Error, with its code as it came."""
        if versions.at_least(network.version, versions.STATUS):
            for number in range(len(network.plugins)):
                self._call(network, number, STATUS)

    def validate(self, network: Network) -> list[Error]:
        """What keeps the network from being run: plugins that are not there, or not of its version."""
        found: list[Error] = []
        for number, name in enumerate(network.types()):
            where = f"/plugins/{number}/type"
            try:
                known = execute.supported(name, self.path, self.timeout)
            except Error as err:
                found.append(Error(err.code, err.message, subject=where, cause=err.cause, hint=err.hint))
                continue
            if network.version not in known:
                hint = f"it supports {', '.join(known)}"
                message = f"the plugin {name} does not support version {network.version}"
                found.append(Error(INCOMPATIBLE_VERSION, message, subject=where, hint=hint))
        return found

    def attachments(self, container: str = "", network: str = "") -> list[Entry]:
        """What is attached, by name: all, or what a container or a network has."""
        return self.cache.attachments(container, network)

    def _forget_stale(self, network: Network, attachment: Attachment) -> None:
        """Undo what is left of an earlier ADD without a DEL: after a reboot, or when the namespace was removed.

        Raises Error(TAKEN) if it is still attached: this ADD would fail, and undoing that would take the attachment away.
        """
        entry = self.cache.find(attachment)
        if entry is None:
            return
        if _is_alive(entry):
            hint = "delete it first"
            message = f"{attachment.ifname} is attached to {attachment.network} already"
            raise Error(TAKEN, message, subject=attachment.container, hint=hint)
        self._delete(network, attachment, Endpoint(attachment.container, entry.netns, attachment.ifname))

    def _remember(self, network: Network, attachment: Attachment, endpoint: Endpoint, result: Result) -> None:
        args, capabilities = endpoint.args or (), endpoint.capabilities or {}
        document = result.document(network.version)
        self.cache.save(Entry(attachment, endpoint.netns, args, capabilities, network.data, document))

    def _delete(self, network: Network, attachment: Attachment, endpoint: Endpoint) -> None:
        entry = self.cache.find(attachment)
        result: Result | None = None
        if entry is not None and versions.at_least(network.version, versions.CHECK):
            try:
                result = entry.parsed()
            except Error:
                result = None  # plugins have to do without
        failures = self._undo(network, endpoint.like(entry), result)
        if failures:
            raise _joined(failures, "")
        self.cache.remove(attachment)

    def _undo(self, network: Network, endpoint: Endpoint, result: Result | None) -> list[Error]:
        failures: list[Error] = []
        for number in reversed(range(len(network.plugins))):
            _collect(failures, self._call, network, number, DEL, endpoint, result)
        return failures

    def _call(
        self,
        network: Network,
        number: int,
        command: str,
        endpoint: Endpoint | None = None,
        previous: Result | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> Result | None:
        """One call of one plugin, whose name is put before what it raises."""
        conf = configuration(network, number, endpoint, previous) | dict(more or {})
        name: str = conf["type"]
        try:
            ours = execute.is_ours(name, self.path)
            one = (
                Call(command, conf, path=self.path)
                if endpoint is None
                else Call(
                    command,
                    conf,
                    container=endpoint.container,
                    netns=endpoint.netns,
                    ifname=endpoint.ifname,
                    args=dict(endpoint.args or ()),
                    path=self.path,
                    lazy=endpoint.lazy,
                )
            )
            return plugins.invoke(name, one) if ours else execute.execute(name, one, self.timeout)
        except Error as err:
            subject = f"{name}: {err.subject}" if err.subject else name
            raise Error(err.code, err.message, subject=subject, cause=err.cause, hint=err.hint) from err
        except Exception as err:
            raise Error(INTERNAL, f"{type(err).__name__}: {err}", subject=name) from err


def configuration(network: Network, number: int, endpoint: Endpoint | None, previous: Result | None) -> dict[str, Any]:
    """What a plugin of the network reads: its own configuration, and what the runtime adds (SPEC.md, section 3)."""
    conf = network.plugins[number] | {"name": network.name, "cniVersion": network.version}
    if previous is not None:
        conf["prevResult"] = previous.document(network.version)
    if endpoint is not None and endpoint.capabilities:
        declared = {name for name, wanted in (conf.get("capabilities") or {}).items() if wanted is True}
        values = {name: value for name, value in endpoint.capabilities.items() if name in declared}
        if values:
            conf["runtimeConfig"] = values
    return conf


def _attachment(network: Network, endpoint: Endpoint) -> Attachment:
    """Raises Error(INVALID_ENVIRONMENT)."""
    check_name(endpoint.container, "CNI_CONTAINERID")
    check_ifname(endpoint.ifname, "CNI_IFNAME")
    return Attachment(network.name, endpoint.container, endpoint.ifname)


def _is_alive(entry: Entry) -> bool:
    """Whether the interface is in the namespace that it was put into. Of `lo` this says nothing."""
    try:
        namespace = Namespace.find(entry.netns)
    except Error:
        return True  # whoever may not look must not delete
    if namespace is None:
        return False
    with namespace:
        return entry.attachment.ifname != "lo" and links.find(namespace.netlink, entry.attachment.ifname) is not None


def _collect(failures: list[Error], do: Callable[..., object], *args: object) -> None:
    try:
        do(*args)
    except Error as err:
        failures.append(err)


def _joined(failures: list[Error], between: str) -> Error:
    """One error for several: the first, and what the others said."""
    first, *others = failures
    if not others:
        return first
    rest = "; ".join(str(one) for one in others)
    cause = "; ".join(part for part in (first.cause, f"{between}: {rest}" if between else rest) if part)
    return Error(first.code, first.message, subject=first.subject, cause=cause, hint=first.hint)
