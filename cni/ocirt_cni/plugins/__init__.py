"""The plugins: a module each, with the functions `add`, `delete`, `check`, `gc` and `status`, as far as it has something to do.

    add(call) -> Result     what it made, with what came from the plugins before it
    delete(call) -> None    undo it: again, without a namespace, without a previous result; what is gone already is no error
    check(call) -> None     raises Error(CHECK_FAILED) for what is not as `add` made it
    gc(call) -> None        undo what belongs to attachments of the network that are not in `call.valid`
    status(call) -> None    raises Error(NOT_AVAILABLE) if `add` could not work
    configure(call)         optional: read the configuration, and do nothing; raises Error for what `ocirt-cni check-config` is
                            to find beyond the fields one by one

Each raises Error. `name` of the executable: a key of PLUGINS.
"""

from __future__ import annotations

from ocirt_cni.call import ADD, CHECK, DEL, GC, STATUS, Call
from ocirt_cni.errors import INTERNAL, Error
from ocirt_cni.results import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The name of the plugin, and of the module here or in `ipam`.
PLUGINS = {
    "bandwidth": "plugins.bandwidth",
    "bridge": "plugins.bridge",
    "dhcp": "ipam.dhcp",
    "dummy": "plugins.dummy",
    "firewall": "plugins.firewall",
    "host-device": "plugins.host_device",
    "host-local": "ipam.host_local",
    "ipvlan": "plugins.ipvlan",
    "loopback": "plugins.loopback",
    "macvlan": "plugins.macvlan",
    "portmap": "plugins.portmap",
    "ptp": "plugins.ptp",
    "sbr": "plugins.sbr",
    "static": "ipam.static",
    "tap": "plugins.tap",
    "tuning": "plugins.tuning",
    "vlan": "plugins.vlan",
    "vrf": "plugins.vrf",
}
_FUNCTIONS = {ADD: "add", DEL: "delete", CHECK: "check", GC: "gc", STATUS: "status"}


def module(name: str) -> Any:
    """The module of a plugin of ours. Raises KeyError."""
    return __import__(f"ocirt_cni.{PLUGINS[name]}", None, None, ("add",))


def invoke(name: str, call: Call) -> Result | None:
    """Do what a call asks for, by a plugin of ours, in this process: with ADD its result. Raises Error, KeyError."""
    function = getattr(module(name), _FUNCTIONS[call.command], None)
    made = function(call) if function is not None else None
    if made is None or isinstance(made, Result):
        return made
    raise Error(INTERNAL, f"{name} returned {made!r}")
