"""The kinds of links that a kernel may lack, and what they have of their own within IFLA_INFO_DATA (linux/if_link.h)."""

from __future__ import annotations

from errno import EOPNOTSUPP

from ocirt_cni.errors import UNSUPPORTED, Error
from ocirt_cni.netlink import links
from ocirt_cni.netlink.socket import Netlink

IFLA_MACVLAN_MODE = 1
IFLA_MACVLAN_BC_QUEUE_LEN = 7
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}  # 32 bits

IFLA_IPVLAN_MODE = 1
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}  # 16 bits

IFLA_VLAN_ID = 1  # 16 bits

IFLA_VRF_TABLE = 1  # 32 bits

# linux/if_tun.h has the same for TUNSETIFF and what follows it.
IFLA_TUN_OWNER = 1
IFLA_TUN_GROUP = 2
IFLA_TUN_MULTI_QUEUE = 7

_OPTIONS = {  # what builds it, and the module
    "dummy": ("CONFIG_DUMMY", "dummy"),
    "ifb": ("CONFIG_IFB", "ifb"),
    "ipvlan": ("CONFIG_IPVLAN", "ipvlan"),
    "macvlan": ("CONFIG_MACVLAN", "macvlan"),
    "vlan": ("CONFIG_VLAN_8021Q", "8021q"),
    "vrf": ("CONFIG_NET_VRF", "vrf"),
}
_NO_ADDRESS = b"\xff" * 6  # no link can have it, so that nothing is made


def supported(netlink: Netlink, kind: str) -> bool:
    """Whether the kernel can make links of a kind. It loads the module, if there is one. Raises nothing."""
    request = links.create(kind, f"probe-{kind}", {links.IFLA_ADDRESS: _NO_ADDRESS})
    (error,) = netlink.attempt(request)
    return error is None or error.errno != EOPNOTSUPP


def need(netlink: Netlink, kind: str, code: int = UNSUPPORTED) -> None:
    """Raise Error(UNSUPPORTED), or another code, if the kernel cannot make links of a kind."""
    if not supported(netlink, kind):
        option, module = _OPTIONS[kind]
        hint = f"it takes a kernel with {option}, and its module {module} if that is built as one"
        raise Error(code, f"this kernel has no links of the kind {kind}", subject="/type", hint=hint)
