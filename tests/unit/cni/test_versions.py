"""The versions of CNI."""

from __future__ import annotations

import itertools

import pytest

from ocirt_cni import versions
from ocirt_cni.errors import INCOMPATIBLE_VERSION, Error


def test_their_order() -> None:
    ranks = [versions.rank(version) for version in ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")]
    assert ranks == sorted(ranks) == list(range(len(versions.SUPPORTED)))


def test_at_least() -> None:
    for (place, one), (other_place, other) in itertools.product(enumerate(versions.SUPPORTED), repeat=2):
        assert versions.at_least(one, other) == (place >= other_place)


@pytest.mark.parametrize("version", ["", "1.2.0", "1.0", "0.3", "v1.0.0", "1.0.0 "])
def test_others_are_refused(version: str) -> None:
    with pytest.raises(Error) as caught:
        versions.rank(version)
    assert (caught.value.code, caught.value.subject) == (INCOMPATIBLE_VERSION, "/cniVersion")
    assert "use one of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0" in caught.value.hint
