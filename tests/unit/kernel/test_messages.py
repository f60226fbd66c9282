"""Messages between parent and child: each comes whole, whatever is in it, and descriptors come along."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.kernel import messages
from tests.unit.kernel.children import open_descriptors

Pair = tuple[int, int]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both ends; what a test closes stays closed."""
    ends = messages.socket_pair()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass


def test_a_pair_is_close_on_exec_and_keeps_the_bounds_of_messages(pair: Pair) -> None:
    first, second = pair
    assert not os.get_inheritable(first)
    assert not os.get_inheritable(second)
    with socket.socket(fileno=os.dup(first)) as end:
        assert (end.family, end.type) == (socket.AF_UNIX, socket.SOCK_SEQPACKET)
    messages.send(first, b"t", b"one")
    messages.send(first, b"t", b"")
    messages.send(first, b"t", b"three")
    assert [messages.receive(second) for _ in range(3)] == [b"tone", b"t", b"tthree"]


def test_both_directions(pair: Pair) -> None:
    first, second = pair
    messages.send(first, b"t", b"down")
    messages.send(second, b"p", b"42")
    assert messages.receive(first) == b"p42"
    assert messages.receive(second) == b"tdown"


def test_the_other_side_is_gone(pair: Pair) -> None:
    first, second = pair
    messages.send(first, b"t", b"last words")
    os.close(first)
    assert messages.receive(second) == b"tlast words"
    assert messages.receive(second) == b""
    with pytest.raises(BrokenPipeError):
        messages.send(second, b"t", b"x")


def test_the_other_side_went_without_reading(pair: Pair) -> None:
    """The kernel then says ECONNRESET once instead of the end."""
    first, second = pair
    messages.send(first, b"t", b"unread")
    os.close(second)
    assert messages.receive(first) == b""


def test_the_other_side_went_without_reading_when_a_descriptor_is_waited_for(pair: Pair) -> None:
    """Init was killed before it read a message: the parent that waits for its console must see its end, not a strange errno."""
    first, second = pair
    messages.send(first, b"t", b"unread")
    os.close(second)
    assert messages.receive_descriptors(first) == (b"", ())


TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF), max_size=80)


@given(
    index=st.integers(0, (1 << 32) - 1),
    number=st.integers(-(1 << 31), (1 << 31) - 1),
    call=st.sampled_from(["", "openat2", "mount_setattr", "KeyError"]),
    detail=TEXT,
)
def test_failures(pair: Pair, index: int, number: int, call: str, detail: str) -> None:
    messages.send_failure(pair[0], index, number, call, detail)
    message = messages.receive(pair[1])
    assert message[:1] == b"f"
    # A byte string that happens to be UTF-8 comes back as the text that it is.
    same = detail.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    assert messages.failure_of(message) == (index, number, call, same)


@pytest.mark.parametrize(
    "detail",
    [
        "x" * 100_000,
        "é" * 5000,
        "\udcff" * 5000,
        "\U0001f433" * 3000,
        "\0" * 9000,
        "a\0b\0",
        b"\xff\xfe/\x80".decode("utf-8", "surrogateescape"),
    ],
    ids=["long", "two bytes", "no UTF-8", "four bytes", "zeros", "with a zero", "a path that is not UTF-8"],
)
def test_odd_details(pair: Pair, detail: str) -> None:
    messages.send_failure(pair[0], 7, errno.ENOENT, "openat2", detail)
    message = messages.receive(pair[1])
    assert len(message) <= 8192
    index, number, call, text = messages.failure_of(message)
    assert (index, number, call) == (7, errno.ENOENT, "openat2")
    raw = text.encode("utf-8", "surrogateescape")
    assert detail.encode("utf-8", "surrogateescape").startswith(raw)
    assert len(raw) >= min(len(detail), 4000)


def test_half_a_character_is_not_the_end_of_the_message(pair: Pair) -> None:
    """Cut in the middle of a character, the rest is kept byte by byte."""
    for length in range(4070, 4100):
        messages.send_failure(pair[0], 0, 1, "c", "x" * length + "\U0001f433")
        _, _, call, text = messages.failure_of(messages.receive(pair[1]))
        assert call == "c"
        assert text.startswith("x" * min(length, 4094 - 2))


def test_a_descriptor(pair: Pair) -> None:
    reader, writer = os.pipe()
    messages.send_descriptors(pair[0], b"d/dev/pts/3", writer)
    os.close(writer)
    data, (came,) = messages.receive_descriptors(pair[1])
    assert data == b"d/dev/pts/3"
    assert not os.get_inheritable(came)
    os.write(came, b"through")
    assert os.read(reader, 10) == b"through"
    os.close(came)
    assert os.read(reader, 10) == b""
    os.close(reader)


@given(st.binary(min_size=1, max_size=8000))
def test_descriptors_leave_none_behind(pair: Pair, data: bytes) -> None:
    before = open_descriptors()
    messages.send_descriptors(pair[0], data, 0)
    got, (came,) = messages.receive_descriptors(pair[1])
    assert got == data
    assert os.fstat(came)[:2] == os.fstat(0)[:2]
    os.close(came)
    assert open_descriptors() == before


def test_a_message_without_a_descriptor(pair: Pair) -> None:
    messages.send(pair[0], b"t", b"ready")
    assert messages.receive_descriptors(pair[1]) == (b"tready", ())
    os.close(pair[0])
    assert messages.receive_descriptors(pair[1]) == (b"", ())


def test_a_descriptor_that_is_not_open(pair: Pair) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as caught:
        messages.send_descriptors(pair[0], b"d", 1023)
    assert caught.value.errno == errno.EBADF


def test_over_a_stream_as_console_sockets_are() -> None:
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with first, second:
        messages.send_descriptors(first.fileno(), b"/dev/pts/0", 0)
        data, descriptors, _, _ = socket.recv_fds(second, 100, 4)
        assert data == b"/dev/pts/0"
        assert len(descriptors) == 1
        os.close(descriptors[0])
