"""route_localnet of a link (Documentation/networking/ip-sysctl.rst): 127.0.0.0/8 is routed by it as any other address is.

A port that is published at 127.0.0.1 needs it on the way to the container. The rules of `inet ocirt` see to it that nothing from
there reaches 127.0.0.0/8, which the sysctl alone would allow (CVE-2020-8558).
"""

from __future__ import annotations

from ocirt_cni import sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.nft.state import State


def is_ours(state: State, device: str) -> bool:
    """Whether we set it, or may: an administrator who has set it already means it, also without our rules, and for good."""
    return state.is_claimed(f"localnet {device}") or sysctl.read(_name(device)) == "0"


def open_for(device: str) -> None:
    """Set it. Raises Error."""
    sysctl.write(_name(device), "1")


def close_for(device: str) -> None:
    """Set it back, if the link is still there. Raises Error."""
    sysctl.write(_name(device), "0", optional=True)


def _name(device: str) -> str:
    return f"net/ipv4/conf/{device}/route_localnet"
