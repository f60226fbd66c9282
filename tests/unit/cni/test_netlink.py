"""Batches of requests to the kernel, as far as they need no privilege."""

from __future__ import annotations

from errno import ENODEV, EPERM

import pytest

from ocirt_cni.netlink import links
from ocirt_cni.netlink.socket import KernelError, Netlink


def test_nothing_to_do() -> None:
    with Netlink() as netlink:
        netlink.execute()
        assert netlink.attempt() == []
        assert netlink.gather() == []
        assert links.find_several(netlink) == []
        assert links.find_several(netlink, "lo", "ocirt-nowhere")[1] is None


def test_an_error_that_is_expected() -> None:
    request = links.change_named("ocirt-nowhere", {})
    with Netlink() as netlink:
        with pytest.raises(KernelError) as caught:
            netlink.execute(request)
        assert caught.value.errno in (ENODEV, EPERM)
        netlink.execute(request, request, but=(caught.value.errno,))
        with pytest.raises(KernelError):
            netlink.execute(request, but=(caught.value.errno + 1,))
