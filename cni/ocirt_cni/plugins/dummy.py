"""dummy: a link in the container that leads nowhere, to hold addresses."""

from __future__ import annotations

from ocirt_cni.call import Call
from ocirt_cni.errors import INVALID_CONFIG, Error
from ocirt_cni.ipam import delegate
from ocirt_cni.plugins import devices, fields, stacked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.links import Link
    from ocirt_cni.netns import Namespace
    from ocirt_cni.results import Result

_KIND = "dummy"


def add(call: Call) -> Result:
    """The link with its addresses. Raises Error."""
    _check_configuration(call)

    def make(namespace: Namespace) -> Link:
        return stacked.make_named(call, namespace.netlink, namespace, _KIND, {})

    return devices.add(call, make)


def configure(call: Call) -> None:
    """Read the configuration, for `check-config`. Raises Error."""
    _check_configuration(call)


def delete(call: Call) -> None:
    """Remove the link, give back the addresses. Raises Error."""
    devices.delete(call, _KIND)


def check(call: Call) -> None:
    """That all is as the previous result says. Raises Error."""
    _check_configuration(call)
    devices.check(call, _KIND)


def gc(call: Call) -> None:
    """Free the addresses of attachments that are gone. Raises Error."""
    devices.gc(call)


def status(call: Call) -> None:
    """That the kernel has such links, and that there are addresses. Raises Error(NOT_AVAILABLE)."""
    devices.status(call, _KIND)


def _check_configuration(call: Call) -> None:
    fields.refuse_unknown(call)
    if not delegate.type_of(call):
        message = "it is missing: a dummy link without addresses is of no use"
        raise Error(INVALID_CONFIG, message, subject="/ipam/type")
