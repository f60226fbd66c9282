"""Calls of plugins that a runtime could make, right and wrong, and what two implementations answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.audits import Audit, drop
from tests.support.chains import Answer, Executables
from tests.support.networks import make_network

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
CONTAINER = "case"
_PREVIOUS_SINCE = {"DEL": "0.4.0", "CHECK": "0.4.0"}  # the first version in which a runtime sends it


@dataclass(frozen=True, eq=False)
class Variant:
    """How a call differs from a complete and right one. `environment`: None takes a variable out. `edit`: of the input."""

    name: str
    environment: Mapping[str, str | None] = field(default_factory=dict)
    edit: Callable[[dict[str, Any]], object] | bytes = b""

    def input(self, conf: dict[str, Any]) -> bytes:
        """The standard input."""
        if isinstance(self.edit, bytes):
            return self.edit or json.dumps(conf).encode()
        self.edit(conf)
        return json.dumps(conf).encode()

    def applied(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment."""
        return {key: value for key, value in {**environment, **self.environment}.items() if value is not None}


RIGHT = Variant("complete")
_EXTRA = {"TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "CNI_SOMETHING": "else", "HOME": "/nowhere"}
VARIANTS = (
    RIGHT,
    *(Variant(f"without {name}", {name: None}) for name in ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")),
    Variant("without CNI_PATH", {"CNI_PATH": None}),
    *(Variant(f"empty {name}", {name: ""}) for name in ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")),
    Variant("an unknown command", {"CNI_COMMAND": "UPDATE"}),
    Variant("a container id with a space", {"CNI_CONTAINERID": "a b"}),
    Variant("a container id that begins with -", {"CNI_CONTAINERID": "-a"}),
    Variant("an interface name of 16 bytes", {"CNI_IFNAME": "e" * 16}),
    Variant("an interface name with a slash", {"CNI_IFNAME": "a/b"}),
    Variant("an interface name with a colon", {"CNI_IFNAME": "a:b"}),
    Variant("the interface name ..", {"CNI_IFNAME": ".."}),
    Variant("a namespace that is not there", {"CNI_NETNS": "/run/netns/gone"}),
    Variant("a namespace that is a file", {"CNI_NETNS": "/etc/passwd"}),
    Variant("arguments of Kubernetes", {"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web"}),
    Variant("arguments without IgnoreUnknown", {"CNI_ARGS": "K8S_POD_NAME=web"}),
    Variant("arguments without =", {"CNI_ARGS": "IgnoreUnknown"}),
    Variant("a MAC among the arguments", {"CNI_ARGS": "MAC=02:00:00:00:00:07"}),
    Variant("more in the environment", _EXTRA),
    Variant("the check of namespaces switched off", {"CNI_NETNS_OVERRIDE": "1"}),
    Variant("no input", edit=b" "),
    Variant("input that is no JSON", edit=b"{name"),
    Variant("input that is no object", edit=b"[]"),
    Variant("no name", edit=lambda conf: conf.pop("name")),
    Variant("a name with a slash", edit=lambda conf: conf.update(name="a/b")),
    Variant("a name that is a number", edit=lambda conf: conf.update(name=7)),
    Variant("no version", edit=lambda conf: conf.pop("cniVersion")),
    Variant("an unknown version", edit=lambda conf: conf.update(cniVersion="9.9.9")),
    Variant("a version that is none", edit=lambda conf: conf.update(cniVersion="one")),
    Variant("a field that nobody knows", edit=lambda conf: conf.update(unheardOf={"a": [1]})),
    Variant("no previous result", edit=lambda conf: conf.pop("prevResult", None)),
    Variant("a previous result that is none", edit=lambda conf: conf.update(prevResult="none")),
)


@dataclass(frozen=True)
class Case:
    """One call."""

    verb: str
    version: str
    variant: Variant


@dataclass(frozen=True)
class Outcome:
    """What came of it: exit status, error code, the result without what differs from run to run, what DEL then left."""

    rc: int
    code: int
    result: str
    left: tuple[str, ...]
    words: str = field(compare=False, default="")

    def __str__(self) -> str:
        text = f"error {self.code}" if self.rc else "ok"
        return f"{text}, leaves {len(self.left)}" if self.left else text


class Subject:
    """A plugin under test: its configuration, and what stands before it in its chain."""

    def __init__(
        self,
        conf: Mapping[str, Any],
        *,
        before: Mapping[str, Any] | None = None,
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        """`before`: a plugin whose result this one gets. `prepare`: what the host needs, once."""
        self.conf = dict(conf)
        self.before = dict(before) if before else None
        self.prepare = prepare


class Bench:
    """Tries the cases of one subject with the executables of one implementation, on a host of its own."""

    def __init__(self, executables: Executables, subject: Subject, scratch: Path) -> None:
        self.executables = executables
        self.subject = subject
        self.scratch = scratch
        self._count = 0
        subject.prepare()
        # What is made once and stays (a bridge, base chains, sysctls) is there from here on.
        for version in VERSIONS:
            self.attempt(Case("ADD", version, RIGHT))
        self.audit = Audit.take(whole=False)
        self.whole = Audit.take()

    def attempt(self, case: Case) -> Outcome:
        """Make what the call needs, call, undo everything, and look for what is left."""
        self._count += 1
        network = make_network(CONTAINER)
        confs = [self._completed(conf, case.version) for conf in (self.subject.before, self.subject.conf) if conf]
        result = None
        if len(confs) == 2:
            result = self.executables.invoke(confs[0], "ADD", CONTAINER, network).ok()
            confs[1]["prevResult"] = result
        if case.verb in ("DEL", "CHECK", "GC"):
            added = self.executables.invoke(confs[-1], "ADD", CONTAINER, network)
            result = added.document if added.rc == 0 else None
        answer = self._call(case, dict(confs[-1]), network, result)
        made = confs if case.verb not in ("STATUS", "VERSION") else confs[:-1]
        for conf in reversed(made):
            self.executables.invoke(conf if result is None else {**conf, "prevResult": result}, "DEL", CONTAINER, network)
        drop(network)
        left = self.audit.changes(0.5) if hasattr(self, "audit") else []
        return Outcome(answer.rc, answer.code, _normal(answer), (*left, *self._leases()), str(answer.document) + answer.said)

    def _call(self, case: Case, conf: dict[str, Any], network: str, result: dict[str, Any] | None) -> Answer:
        conf.pop("prevResult", None) if case.verb in ("GC", "STATUS", "VERSION") else None
        if case.verb in _PREVIOUS_SINCE and result is not None and case.version >= _PREVIOUS_SINCE[case.verb]:
            conf["prevResult"] = result
        if case.verb == "GC":
            conf["cni.dev/valid-attachments"] = [{"containerID": CONTAINER, "ifname": "eth0"}]
        environment = self.executables.environment(case.verb, CONTAINER, network)
        if case.verb in ("GC", "STATUS", "VERSION"):
            environment = {key: environment[key] for key in ("CNI_COMMAND", "CNI_PATH")}
        return self.executables.call(conf["type"], case.variant.applied(environment), case.variant.input(conf))

    def _completed(self, conf: Mapping[str, Any], version: str) -> dict[str, Any]:
        """With the common fields; addresses begin anew with every case."""
        whole = {"cniVersion": version, "name": "net", **conf}
        if conf.get("ipam", {}).get("type") == "host-local":
            whole["ipam"] = {**conf["ipam"], "dataDir": str(self._place())}
        return whole

    def _place(self) -> Path:
        return self.scratch / f"{self.executables.name}-{self._count}"

    def _leases(self) -> Iterator[str]:
        """Files of the address store that name the container."""
        for path in self._place().rglob("*"):
            if path.is_file() and CONTAINER.encode() in path.read_bytes():
                yield f"lease: left behind: {path.relative_to(self._place())}"


def _normal(answer: Answer) -> str:
    """A result as text, in which MACs and the names of host links are all alike."""
    if answer.rc:
        return ""
    document = json.loads(json.dumps(answer.document))
    if not document.get("dns"):
        document.pop("dns", None)  # it says nothing
    for one in document.get("interfaces", []):
        one["mac"] = "MAC" if one.get("mac") else ""
        if one["name"].startswith("veth") or not (one.get("sandbox") or one["name"] == "br0"):
            one["name"] = "HOST"
    return json.dumps(document, sort_keys=True)
