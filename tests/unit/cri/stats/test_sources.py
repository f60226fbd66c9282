"""Which cgroups are a pod's own."""

from __future__ import annotations

import pytest

from ocirt_cri.spec.cgroups import is_of_one_pod

UID = "12345678-aaaa-bbbb-cccc-123456789abc"


@pytest.mark.parametrize(
    ("parent", "own"),
    [
        (f"/kubepods/burstable/pod{UID}", True),
        (f"/kubepods/pod{UID}/", True),
        ("kubepods-besteffort-pod12345678_aaaa_bbbb_cccc_123456789abc.slice", True),
        ("/kubepods.slice/kubepods-pod12345678_aaaa_bbbb_cccc_123456789abc.slice", True),
        ("", False),
        ("/test.slice", False),
        (f"/kubepods/pod{UID}/more", False),
        ("/kubepods/pod-of-somebody-else", False),
    ],
)
def test_parents(parent: str, *, own: bool) -> None:
    assert is_of_one_pod(parent, UID) is own
    assert not is_of_one_pod(parent, "")
