"""Where our plugins are meant to answer otherwise than the reference, and why."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from conformance.cnicases import Case, Outcome


@dataclass(frozen=True)
class Reason:
    """A difference that is wanted. Empty fields stand for any."""

    why: str
    variants: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    theirs: int = -2  # the reference's error code, 0 for success; -2: any
    ours: tuple[int, ...] = ()
    apart: tuple[str, ...] = ()  # the results are the same apart from these fields of interfaces

    def explains(self, plugin: str, case: Case, theirs: Outcome, ours: Outcome) -> bool:
        """Whether it is the reason of this difference."""
        return (
            (not self.plugins or plugin in self.plugins)
            and (not self.verbs or case.verb in self.verbs)
            and (not self.versions or case.version in self.versions)
            and (not self.variants or case.variant.name in self.variants)
            and self.theirs in (-2, theirs.code)
            and (not self.ours or ours.code in self.ours)
            and (not self.apart or self._without(theirs) == self._without(ours))
        )

    def _without(self, outcome: Outcome) -> Any:
        document = json.loads(outcome.result or "{}")
        for one in document.get("interfaces", []):
            for name in self.apart:
                one.pop(name, None)
        return document


_LATER = ("bandwidth", "firewall", "firewall, same-bridge", "vrf")
REASONS = (
    Reason(
        "the specification has CNI_PATH optional; only what executes another plugin needs it",
        variants=("without CNI_PATH",),
        theirs=4,
    ),
    Reason("999 is libcni's for what nobody thought of; this code says what it is", theirs=999, ours=(4, 7, 8, *range(100, 110))),
    Reason(
        "arguments that no plugin knows are left alone: the reference's host-local refuses the MAC that is for bridge",
        variants=("arguments without IgnoreUnknown", "a MAC among the arguments"),
        theirs=999,
        ours=(0,),
    ),
    Reason(
        "this kernel has no links of the kind, so no ADD can work, which is what STATUS is for",
        verbs=("STATUS",),
        plugins=("dummy", "vlan", "ipvlan", "vrf"),
        theirs=0,
        ours=(50,),
    ),
    Reason("ours speak every version, and these of the reference only some", plugins=_LATER, theirs=1, ours=(0, 7, 103)),
    Reason(
        "a field that no plugin has is refused, with those that there are", variants=("a field that nobody knows",), ours=(2,)
    ),
    Reason(
        "a previous result says itself of which version it is",
        variants=("no version",),
        theirs=999,
        ours=(0,),
    ),
    Reason(
        "version 1.1.0 has the MTU of interfaces, and the reference leaves it out",
        versions=("1.1.0",),
        verbs=("ADD",),
        apart=("mtu",),
    ),
    Reason(
        "what is bound to no namespace any more, as after a reboot, is gone; DEL goes on",
        variants=("a namespace that is a file",),
        verbs=("DEL",),
        theirs=999,
        ours=(0,),
    ),
    Reason(
        "arguments that cannot be read are refused by every plugin, not only by those that look at them",
        variants=("arguments without =",),
        ours=(4,),
    ),
    Reason(
        "it is JSON and decodes (6 would deny that); 7 comes with the pointer of the field",
        variants=("a name that is a number", "a previous result that is none"),
        ours=(7,),
    ),
    Reason(
        "a version that nobody knows is code 1 of the specification", variants=("a version that is none",), theirs=6, ours=(1,)
    ),
    Reason(
        "the specification: the answer's cniVersion is that of the input",
        verbs=("VERSION",),
        theirs=0,
        ours=(0,),
    ),
    Reason(
        "the reference prints the form of 1.0.0 whatever version is asked for",
        verbs=("ADD",),
        plugins=("loopback",),
        versions=("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0"),
        theirs=0,
        ours=(0,),
    ),
)


def reason(plugin: str, case: Case, theirs: Outcome, ours: Outcome) -> str:
    """Why these differ; empty if nobody has written it down."""
    return next((one.why for one in REASONS if one.explains(plugin, case, theirs, ours)), "")
