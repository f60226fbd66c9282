"""`ocirt-cni show`: what is attached, from the cache and from the firewall's records, which need not agree."""

from __future__ import annotations

from ocirt_cni.call import Attachment
from ocirt_cni.cli.gc import is_there
from ocirt_cni.cli.options import Options
from ocirt_cni.cli.output import out, show_json
from ocirt_cni.cli.target import runner
from ocirt_cni.errors import Error
from ocirt_cni.results import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_cni.runner.cache import Entry


class View:
    """One attachment, with all that is known of it. `rules`: (plugin, what it does)."""

    def __init__(self, attachment: Attachment, entry: Entry | None, rules: list[tuple[str, str]]) -> None:
        self.attachment = attachment
        self.rules = rules
        self.netns = entry.netns if entry is not None else ""
        self.is_known = entry is not None
        self.is_there = entry is not None and is_there(entry.netns)
        result = _result(entry)
        self.addresses = [str(ip.address) for ip in result.ips]
        self.gateways = [str(ip.gateway) for ip in result.ips if ip.gateway is not None]
        self.links = [one.name for one in result.interfaces if not one.sandbox]
        self.ports = _ports(entry.capabilities.get("portMappings")) if entry is not None else []

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "network": self.attachment.network,
            "container": self.attachment.container,
            "interface": self.attachment.ifname,
            "namespace": self.netns,
            "namespaceExists": self.is_there,
            "addresses": self.addresses,
            "gateways": self.gateways,
            "hostLinks": self.links,
            "ports": self.ports,
            "rules": [{"plugin": plugin, "rule": rule} for plugin, rule in self.rules],
        }

    def text(self) -> str:
        """For people."""
        one = self.attachment
        netns = self.netns + ("" if self.is_there else " (gone)") if self.is_known else "not known: it is not in the cache"
        rows = [("namespace", netns), ("addresses", ", ".join(self.addresses)), ("gateways", ", ".join(self.gateways))]
        rows += [("host links", ", ".join(self.links)), *(("port", port) for port in self.ports)]
        rows += [("rule", f"{plugin}: {rule}") for plugin, rule in self.rules]
        lines = [f"    {name.ljust(10)}  {value}\n" for name, value in rows if value]
        return f"{one.network}: {one.ifname} of {one.container}\n" + "".join(lines)


def run(given: Options) -> int:
    """Print the attachments of one or all networks. Raises Error; returns 1 if the rules cannot be read."""
    network = given.arguments[0] if given.arguments else ""
    failure = ""
    try:
        rules = _rules(network)
    except Error as err:
        rules, failure = {}, str(err)
    entries = {entry.attachment: entry for entry in runner(given).attachments(network=network)}
    owners = sorted({*entries, *rules}, key=str)
    views = [View(owner, entries.get(owner), rules.get(owner, [])) for owner in owners]
    if given.get("json"):
        document: dict[str, Any] = {"attachments": [view.document() for view in views]}
        show_json(document | ({"rulesError": failure} if failure else {}))
    else:
        out("".join(view.text() for view in views))
        if failure:
            out(f"The firewall's rules cannot be read: {failure}\n")
    return 1 if failure else 0


def _result(entry: Entry | None) -> Result:
    try:
        return (entry.parsed() if entry is not None else None) or Result()
    except Error:
        return Result()


def _ports(mappings: Any) -> list[str]:
    """`PROTOCOL [HOST:]PORT -> PORT` of each port that the runtime asked for."""
    found = []
    for one in mappings if isinstance(mappings, list) else ():
        if isinstance(one, dict):
            host = str(one.get("hostIP") or "")
            host = f"[{host}]:" if ":" in host else f"{host}:" if host else ""
            found.append(f"{one.get('protocol') or 'tcp'} {host}{one.get('hostPort')} -> {one.get('containerPort')}")
    return found


def _rules(network: str) -> dict[Attachment, list[tuple[str, str]]]:
    """What the firewall has for each attachment. Raises Error."""
    from ocirt_cni import nft  # noqa: PLC0415  (it loads a library)

    found: dict[Attachment, list[tuple[str, str]]] = {}
    for rules in nft.listing():
        if network in ("", rules.attachment.network):
            lines = [
                *(f"masquerade {prefix.address} outside {prefix.network}" for prefix in rules.masqueraded),
                *(f"publish {port}" for port in rules.ports),
                *(f"let pass other tables: {device}" for device in rules.admitted),
                *(f"keep from the host's loopback: {device}" for device in rules.localnet),
                *(f"frames from {device} have the source {mac}" for device, mac in rules.sources),
                *(f"isolate {bridge}{', and its containers' if within else ''}" for bridge, within in rules.bridges),
                *(f"keep apart from other such ports: {device}" for device in rules.apart),
            ]
            found.setdefault(rules.attachment, []).extend((rules.plugin, line) for line in lines)
    return found
