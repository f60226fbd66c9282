"""The configuration of the bridge plugin, read and checked before anything is done."""

from __future__ import annotations

from ocirt_cni.call import Call, check_ifname, field
from ocirt_cni.errors import INVALID_CONFIG, INVALID_ENVIRONMENT, Error
from ocirt_cni.plugins import fields
from ocirt_cni.results import DNS, parse_dns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FIELDS = (
    *("bridge", "isGateway", "isDefaultGateway", "forceAddress", "ipMasq", "ipMasqBackend", "mtu", "hairpinMode", "promiscMode"),
    *("vlan", "vlanTrunk", "preserveDefaultVlan", "macspoofchk", "enabledad", "disableContainerInterface", "portIsolation"),
)
_LAST_VLAN = 4094  # IEEE 802.1Q: 4095 is reserved


class Settings:
    """What a configuration asks for.

    bridge: the bridge's name
    is_gateway, is_default_gateway: whether the bridge has the gateway's addresses, and containers a default route over them
    force_address: whether another address of the bridge gives way to the gateway's
    masquerade: whether traffic that leaves the network has an address of the host
    mtu: of the bridge, if it is made, and of the pair; 0: the bridge's, or the kernel's choice
    hairpin: whether a frame may go back out of the port it came in by
    promiscuous: whether the bridge takes all frames, which lets a container reach its own Service as well
    vlan, trunk: VLAN of the port without tags, 0 for none; those with
    keep_default_vlan: whether the port stays in the bridge's default VLAN beside these
    check_spoofing: whether frames have to have the container's hardware address
    detect_duplicates: whether IPv6 addresses are looked for on the network first
    has_interface: whether the container's interface is brought up and configured
    isolated: whether the port exchanges frames with non-isolated ports alone
    mac: of the container's interface; empty: the kernel's choice
    dns: instead of what the IPAM plugin says, if there is anything in it
    ipam: whether there is an IPAM plugin
    """

    __slots__ = (
        "bridge",
        "check_spoofing",
        "detect_duplicates",
        "dns",
        "force_address",
        "hairpin",
        "has_interface",
        "ipam",
        "is_default_gateway",
        "is_gateway",
        "isolated",
        "keep_default_vlan",
        "mac",
        "masquerade",
        "mtu",
        "promiscuous",
        "trunk",
        "vlan",
    )

    def __init__(self, call: Call) -> None:
        """Raises Error(INVALID_CONFIG), Error(UNSUPPORTED_FIELD), or Error(INVALID_ENVIRONMENT) for CNI_ARGS."""
        fields.refuse_unknown(call, *_FIELDS)
        conf = call.conf
        self.bridge: str = field(conf, "bridge", str, "cni0")
        check_ifname(self.bridge, "/bridge", INVALID_CONFIG)
        self.is_default_gateway: bool = field(conf, "isDefaultGateway", bool, False)
        self.is_gateway: bool = field(conf, "isGateway", bool, False) or self.is_default_gateway
        self.force_address: bool = field(conf, "forceAddress", bool, False)
        self.masquerade: bool = fields.masquerade(conf)
        self.mtu: int = fields.mtu(conf)
        self.hairpin: bool = field(conf, "hairpinMode", bool, False)
        self.promiscuous: bool = field(conf, "promiscMode", bool, False)
        self.vlan: int = _number(conf, "vlan", 0, "", 0)
        self.trunk: list[int] = _trunk(conf)
        self.keep_default_vlan: bool = field(conf, "preserveDefaultVlan", bool, False)
        self.check_spoofing: bool = field(conf, "macspoofchk", bool, False)
        self.detect_duplicates: bool = field(conf, "enabledad", bool, False)
        self.has_interface: bool = not field(conf, "disableContainerInterface", bool, False)
        self.isolated: bool = field(conf, "portIsolation", bool, False)
        self.mac: bytes = _mac(call)
        self.dns: DNS = parse_dns(conf, "")
        self.ipam: bool = bool(field(field(conf, "ipam", dict, {}), "type", str, "", "/ipam"))
        self._contradictions()

    def _contradictions(self) -> None:
        if self.hairpin and self.promiscuous:
            raise Error(INVALID_CONFIG, "hairpinMode is set as well", subject="/promiscMode", hint="one of them is enough")
        if self.ipam and not self.has_interface:
            hint = "leave out ipam: an interface that is down has no addresses"
            raise Error(INVALID_CONFIG, "disableContainerInterface is set as well", subject="/ipam", hint=hint)
        if self.vlan and len(self.gateway_device.encode()) > 15:
            hint = f"the gateway of a VLAN is the link {self.gateway_device}, whose name may have 15 bytes"
            raise Error(INVALID_CONFIG, "the name is too long", subject="/bridge", hint=hint)

    @property
    def has_vlans(self) -> bool:
        """Whether the bridge has to tell VLANs apart."""
        return bool(self.vlan or self.trunk)

    @property
    def gateway_device(self) -> str:
        """The link that has the gateway's addresses: the bridge, or a link to the port's VLAN."""
        return f"{self.bridge}.{self.vlan}" if self.vlan else self.bridge


def _number(one: dict[str, Any], name: str, default: int | None, where: str, first: int = 1) -> int:
    """A VLAN's number."""
    found: int = field(one, name, int, default, where)
    if not first <= found <= _LAST_VLAN:
        raise Error(INVALID_CONFIG, f"{found} is not between {first} and {_LAST_VLAN}", subject=f"{where}/{name}")
    return found


def _trunk(conf: dict[str, Any]) -> list[int]:
    found: set[int] = set()
    for place, one in enumerate(field(conf, "vlanTrunk", list, [])):
        where = f"/vlanTrunk/{place}"
        if not isinstance(one, dict):
            raise Error(INVALID_CONFIG, "this is not an object", subject=where)
        given = {name for name in ("id", "minID", "maxID") if one.get(name) is not None}
        if not given or len(given & {"minID", "maxID"}) == 1:
            raise Error(INVALID_CONFIG, "it has neither id, nor minID and maxID", subject=where)
        if "id" in given:
            found.add(_number(one, "id", None, where))
        if "minID" in given:
            first, last = _number(one, "minID", None, where), _number(one, "maxID", None, where)
            if first > last:
                raise Error(INVALID_CONFIG, f"{first} is more than maxID, {last}", subject=f"{where}/minID")
            found.update(range(first, last + 1))
    return sorted(found)


def _mac(call: Call) -> bytes:
    """The hardware address: of the capability, else of `args.cni`, else of CNI_ARGS."""
    found = b""
    for text, subject, code in (
        (field(call.runtime, "mac", str, "", "/runtimeConfig"), "/runtimeConfig/mac", INVALID_CONFIG),
        (field(call.cni_args, "mac", str, "", "/args/cni"), "/args/cni/mac", INVALID_CONFIG),
        (call.args.get("MAC", ""), "CNI_ARGS", INVALID_ENVIRONMENT),
    ):
        if text:
            one = fields.parse_mac(text, subject, code)
            found = found or one
    return found
