"""The options of cgroup2, as mountinfo has them."""

from __future__ import annotations

import pytest

from ocirt.criu import delegation

LINE = b"53 27 0:29 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (LINE, ("nsdelegate", "memory_recursiveprot")),
        (b"22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw,quota\n" + LINE, ("nsdelegate", "memory_recursiveprot")),
        (b"53 27 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", ()),
        (b"22 1 8:1 / /x\\040-\\040y rw - tmpfs tmpfs rw\n", ()),
        (b"", ()),
        (b"garbage - \n", ()),
    ],
)
def test_options(text: bytes, wanted: tuple[str, ...]) -> None:
    assert delegation.options(text) == wanted
