"""What image a signature has to be for."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt_images.reference import Reference
from ocirt_images.trust import identity

DIGEST = "sha256:" + "a" * 64
TAGGED, BY_DIGEST, BOTH = "a.example/team/app:1", f"a.example/team/app@{DIGEST}", f"a.example/team/app:1@{DIGEST}"
NAME, OTHER_TAG, OTHER = "a.example/team/app", "a.example/team/app:2", "a.example/team/other:1"
REMAP = {"type": "remapIdentity", "prefix": "a.example/team", "signedPrefix": "vendor.example/x"}
HOST = {"type": "remapIdentity", "prefix": "a.example", "signedPrefix": "vendor.example:5000"}

# Rule, what was asked for, what the signature says: whether that will do
TABLE: list[tuple[Any, str, str, bool]] = [
    ({"type": "matchExact"}, TAGGED, TAGGED, True),
    ({"type": "matchExact"}, TAGGED, OTHER_TAG, False),
    ({"type": "matchExact"}, TAGGED, NAME, False),
    ({"type": "matchExact"}, TAGGED, BY_DIGEST, False),
    ({"type": "matchExact"}, BY_DIGEST, BY_DIGEST, True),
    ({"type": "matchExact"}, BY_DIGEST, TAGGED, False),
    ({"type": "matchExact"}, BOTH, BY_DIGEST, True),
    ({"type": "matchExact"}, BOTH, TAGGED, False),
    (None, TAGGED, TAGGED, True),
    (None, TAGGED, OTHER_TAG, False),
    (None, TAGGED, NAME, False),
    (None, BY_DIGEST, TAGGED, True),
    (None, BY_DIGEST, OTHER_TAG, True),
    (None, BY_DIGEST, NAME, False),
    (None, BY_DIGEST, OTHER, False),
    (None, BOTH, OTHER_TAG, True),
    ({"type": "matchRepoDigestOrExact"}, BY_DIGEST, TAGGED, True),
    ({"type": "matchRepository"}, TAGGED, NAME, True),
    ({"type": "matchRepository"}, TAGGED, OTHER_TAG, True),
    ({"type": "matchRepository"}, BY_DIGEST, NAME, True),
    ({"type": "matchRepository"}, TAGGED, OTHER, False),
    ({"type": "matchRepository"}, TAGGED, "a.example/team/app/more", False),
    ({"type": "matchRepository"}, "docker.io/library/busybox:1", "busybox", True),
    ({"type": "matchRepository"}, "docker.io/library/busybox:1", "index.docker.io/library/busybox", True),
    ({"type": "exactReference", "dockerReference": OTHER}, TAGGED, OTHER, True),
    ({"type": "exactReference", "dockerReference": OTHER}, TAGGED, TAGGED, False),
    ({"type": "exactReference", "dockerReference": OTHER}, TAGGED, "a.example/team/other", False),
    ({"type": "exactRepository", "dockerRepository": "a.example/team/other"}, TAGGED, OTHER, True),
    ({"type": "exactRepository", "dockerRepository": "a.example/team/other"}, TAGGED, "a.example/team/other", True),
    ({"type": "exactRepository", "dockerRepository": "a.example/team/other"}, TAGGED, TAGGED, False),
    ({"type": "exactRepository", "dockerRepository": "busybox"}, TAGGED, "docker.io/library/busybox:2", True),
    (REMAP, TAGGED, "vendor.example/x/app:1", True),
    (REMAP, TAGGED, TAGGED, False),
    (REMAP, TAGGED, "vendor.example/x/app:2", False),
    (REMAP, BY_DIGEST, "vendor.example/x/app:2", True),
    (REMAP, "a.example/team2/app:1", "vendor.example/x2/app:1", False),
    (REMAP, "a.example/team2/app:1", "a.example/team2/app:1", True),
    (HOST, TAGGED, "vendor.example:5000/team/app:1", True),
    (HOST, "a.example2/team/app:1", "vendor.example:50002/team/app:1", False),
    ({"type": "matchRepository"}, TAGGED, "", False),
    ({"type": "matchRepository"}, TAGGED, "A b", False),
]


@pytest.mark.parametrize(("rule", "asked", "signed", "wanted"), TABLE)
def test_identities(rule: Any, asked: str, signed: str, wanted: bool) -> None:
    assert identity.parse(rule, "x").accepts(Reference.parse(asked), signed) is wanted
