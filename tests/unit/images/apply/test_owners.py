"""Which extended attributes a layer may bring along."""

from __future__ import annotations

import pytest

from ocirt_images.apply.owners import kept

KEPT = ("user.a", "user.overlayed", "user.xdg.origin.url", "security.capability", "system.posix_acl_access")
LEFT_OUT = (
    # overlayfs' own, for mounts by root and by users, and those that it hides in a nested mount
    *(
        f"{kind}.overlay.{name}"
        for kind in ("trusted", "user")
        for name in ("opaque", "redirect", "metacopy", "whiteout", "origin")
    ),
    *("user.overlay.", "user.overlay.overlay.opaque", "trusted.overlay.overlay.redirect"),
    # the administrator's, and labels
    *("trusted.a", "trusted.", "security.selinux", "security.apparmor", "security.SMACK64", "security.ima", "security.evm"),
    # names that only look like one that is kept
    *("security.capability2", "SECURITY.CAPABILITY", "system.posix_acl", "system.nfs4_acl", "User.a", "user", "", "a"),
)


@pytest.mark.parametrize("name", KEPT)
def test_kept(name: str) -> None:
    assert kept(name.encode())


@pytest.mark.parametrize("name", LEFT_OUT)
def test_left_out(name: str) -> None:
    assert not kept(name.encode())
