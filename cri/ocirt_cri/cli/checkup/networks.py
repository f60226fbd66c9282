"""What pods' networks need: nftables, networks that are configured, and nobody who drops what they forward."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from ocirt_cri.cli.checkup import BAD, OK, WARNING, Finding

_FOLDER = "/etc/cni/net.d"
_PROGRAMS = "/opt/cni/bin"


def firewall(given: Any) -> Iterator[Finding]:
    """Whether the kernel has nftables, and which chains of others may drop what pods send."""
    del given
    from ocirt_cni.netlink.socket import KernelError  # noqa: PLC0415
    from ocirt_cni.nft import forward, wire  # noqa: PLC0415

    try:
        tables = wire.Tables()
        try:
            lacking = forward.lacking(tables)
        finally:
            tables.close()
    except KernelError as err:
        hint = "modprobe nf_tables; without it no pod has a network of its own with masquerade or ports of the host"
        yield Finding("nftables", WARNING, str(err), hint)
        return
    dropping = [place for place in lacking if "filter FORWARD" not in place]
    if dropping:
        hint = "ocirt adds a rule there with the first pod, and takes it away with the last"
        yield Finding("firewall", OK, f"may drop what pods send: {', '.join(dropping)}", hint)
    else:
        yield Finding("firewall", OK, "nobody drops what pods send")


def configuration(given: Any) -> Iterator[Finding]:
    """The networks that are configured, if any are."""
    del given
    from ocirt_cni.cli.checks import networks  # noqa: PLC0415
    from ocirt_cni.cli.checks.kinds import ERROR  # noqa: PLC0415
    from ocirt_cni.runner import lists  # noqa: PLC0415

    if not os.path.isdir(_FOLDER) or not lists.files(_FOLDER):
        yield Finding("network", OK, f"{_FOLDER} has none: pods get the one that is built in")
        return
    found = networks.check_folder(_FOLDER, (_PROGRAMS,))
    for one in found:
        yield Finding("network", BAD if one.level == ERROR else WARNING, f"{one.file} {one.pointer}: {one.message}", one.hint)
    if not found:
        yield Finding("network", OK, ", ".join(each.name for each in lists.scan(_FOLDER)[0]))
