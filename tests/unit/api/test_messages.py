"""Our messages are those of the .proto files, and protobuf reads and writes the same bytes."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError as TheirError
from google.protobuf.message import Message as Made
from hypothesis import given, settings
from hypothesis import strategies as st

from ocirt_api.containerd import task_v2_pb2, task_v3_pb2
from ocirt_api.message import EncodeError, Field, Message
from ocirt_api.messages import events, task
from ocirt_api.messages.google import Any as AnyMessage
from ocirt_api.messages.google import Timestamp
from ocirt_api.messages.task import CreateTaskRequest, KillRequest, WaitResponse
from ocirt_api.messages.types import Mount
from ocirt_api.wire import DecodeError
from tests.unit.api.pairs import NAMES, OURS, PAIRS, classes, made, messages, ours_of, same

Pair = tuple[type[Message], type[Made]]
of_every_message = pytest.mark.parametrize("pair", PAIRS, ids=NAMES)
FEW = settings().max_examples // 10  # of each of 74 messages
of_any_message = given(pair=st.sampled_from(PAIRS), data=st.data())


def described(field: Field) -> tuple[int, str, str]:
    """Number, type and label of a field of ours, in the words of `theirs`."""
    rule = ("singular", "optional", "repeated", "map")[field.rule]
    return field.number, field.of.__name__ if field.of else field.kind.name, rule


def theirs(field: Any) -> tuple[int, str, str]:
    kind, rule = field, "repeated" if field.is_repeated else "optional" if field.has_presence else "singular"
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        assert field.message_type.fields_by_name["key"].type == FieldDescriptor.TYPE_STRING
        kind, rule = field.message_type.fields_by_name["value"], "map"
    names = {value: name for name, value in vars(FieldDescriptor).items() if name.startswith("TYPE_")}
    name = kind.message_type.name if kind.message_type is not None else names[kind.type].removeprefix("TYPE_").lower()
    return field.number, name, rule


@of_every_message
def test_fields_are_those_of_the_proto_file(pair: Pair) -> None:
    ours, made = pair
    wanted = {field.name: theirs(field) for field in made.DESCRIPTOR.fields}
    assert {field.name: described(field) for field in ours.FIELDS.values()} == wanted
    assert ours.TYPE_URL in ("", made.DESCRIPTOR.full_name)


def test_every_class_has_its_message() -> None:
    for module in OURS:
        for ours in classes(module):
            assert len(made(ours, module)) == (2 if module is task else 1), ours


@pytest.mark.parametrize("module", [task_v2_pb2, task_v3_pb2])
def test_every_message_and_method_of_the_task_service_is_there(module: Any) -> None:
    service = module.DESCRIPTOR.services_by_name["Task"]
    assert service.full_name in task.SERVICES
    described = {method.name: (method.input_type.name, method.output_type.name) for method in service.methods}
    assert {name: (sent.__name__, got.__name__) for name, (sent, got) in task.METHODS.items()} == described


def test_every_event_can_be_published() -> None:
    names = {ours for ours in classes(events) if ours.__name__.startswith("Task") and ours is not events.TaskIO}
    assert set(events.TOPICS) == names
    assert all(event.TYPE_URL for event in events.TOPICS)


@of_every_message
@settings(max_examples=FEW)
@given(data=st.data())
def test_protobuf_reads_what_we_write_and_we_what_it_writes(pair: Pair, data: st.DataObject) -> None:
    ours, made = pair
    values = data.draw(messages(made.DESCRIPTOR))
    message, expected = ours_of(ours, values), made(**values)
    assert made.FromString(message.encode()) == expected
    assert ours.decode(expected.SerializeToString()) == message
    assert len(message.encode()) == expected.ByteSize()


# An unknown field of each kind: number 100, as a varint, 8 bytes, text, a group with a field in it, and 4 bytes.
UNKNOWN = [b"\xa0\x06\x05", b"\xa1\x06" + bytes(8), b"\xa2\x06\x03abc", b"\xa3\x06\x08\x01\xa4\x06", b"\xa5\x06" + bytes(4)]


@of_any_message
def test_what_is_not_known_is_passed_over(pair: Pair, data: st.DataObject) -> None:
    ours, made = pair
    message = ours_of(ours, data.draw(messages(made.DESCRIPTOR)))
    first, second = (b"".join(data.draw(st.lists(st.sampled_from(UNKNOWN), max_size=3))) for _ in range(2))
    assert ours.decode(first + message.encode() + second) == message


@of_any_message
def test_what_is_cut_off_is_refused_where_protobuf_refuses_it(pair: Pair, data: st.DataObject) -> None:
    ours, made = pair
    written = made(**data.draw(messages(made.DESCRIPTOR))).SerializeToString()
    cut = written[: data.draw(st.integers(0, max(0, len(written) - 1)))]
    agree(ours, made, cut)


@of_any_message
def test_any_bytes_are_read_or_refused_as_protobuf_does(pair: Pair, data: st.DataObject) -> None:
    ours, made = pair
    written = bytearray(made(**data.draw(messages(made.DESCRIPTOR))).SerializeToString())
    for place, other in data.draw(st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(max_size=3)), max_size=3)):
        start = place % (len(written) + 1)
        written[start : start + len(other)] = other
    agree(ours, made, bytes(written))


def agree(ours: type[Message], made: type[Made], data: bytes) -> None:
    """Both refuse the bytes, or read the same."""
    try:
        expected = made.FromString(data)
    except TheirError:
        with pytest.raises(DecodeError, match=ours.__name__):
            ours.decode(data)
        return
    found = ours.decode(data)
    expected.DiscardUnknownFields()
    assert same(ours.decode(expected.SerializeToString()), found)


def test_parts_of_a_message_that_stands_twice_are_one() -> None:
    first, second = WaitResponse(exited_at=Timestamp(seconds=5)), WaitResponse(exit_status=3, exited_at=Timestamp(nanos=7))
    assert WaitResponse.decode(first.encode() + second.encode()) == WaitResponse(
        exit_status=3, exited_at=Timestamp(seconds=5, nanos=7)
    )


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (KillRequest(signal=-1), "KillRequest.signal: -1 is no uint32"),
        (KillRequest(signal=1 << 32), "KillRequest.signal: 4294967296 is no uint32"),
        (Timestamp(nanos=1 << 31), "Timestamp.nanos: 2147483648 is no int32"),
        (KillRequest(id=b"x"), "KillRequest.id: b'x' is no string"),  # type: ignore[arg-type]
        (KillRequest(id="\udc80"), "KillRequest.id: '\\udc80' is no string"),
        (AnyMessage(value="x"), "Any.value: 'x' is no bytes"),  # type: ignore[arg-type]
        (CreateTaskRequest(rootfs=[Mount(options=[5])]), "CreateTaskRequest.rootfs: Mount.options: [5] is no string"),  # type: ignore[list-item]
    ],
)
def test_a_value_that_cannot_be_is_named(message: Message, text: str) -> None:
    with pytest.raises(EncodeError) as caught:
        message.encode()
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x0a\x05abc", "CreateTaskRequest: ends within field 1: 3 of its 5 bytes are there"),
        (b"\x20", "CreateTaskRequest: ends within a number"),
        (b"\x20" + b"\xff" * 10, "CreateTaskRequest: a number has more than 10 bytes"),
        (b"\x1a\x03\x0a\x05a", "CreateTaskRequest.rootfs: Mount: ends within field 1: 1 of its 5 bytes are there"),
        (b"\x0a\x02a\xff", "CreateTaskRequest.id: is not UTF-8: byte 0xff at 1"),
        (b"\x02\x00", "CreateTaskRequest: there is no field 0"),
        (b"\x0f\x00", "CreateTaskRequest: field 1 is written in a way that does not exist (7)"),
        (b"\x0c", "CreateTaskRequest: field 1 is written in a way that does not exist (4)"),
        (b"\xa3\x06\x08\x01", "CreateTaskRequest: ends within the group 100"),
        (b"\xa3\x06\xac\x06", "CreateTaskRequest: the group 101 ends, but has not begun"),
        (b"\xa3\x06" * 101, "CreateTaskRequest: has more than 100 groups within each other"),
    ],
)
def test_bytes_that_are_no_message_are_refused_with_words(data: bytes, text: str) -> None:
    with pytest.raises(DecodeError) as caught:
        CreateTaskRequest.decode(data)
    assert str(caught.value) == text


def test_a_field_that_does_not_exist() -> None:
    with pytest.raises(TypeError, match="KillRequest has no field sginal"):
        KillRequest(sginal=9)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        KillRequest.signal  # noqa: B018  (of a message, not of the class)


def test_messages_show_what_they_have() -> None:
    assert repr(KillRequest(id="a", signal=9)) == "KillRequest(id='a', signal=9)"
    assert KillRequest(id="a") != KillRequest(id="b")
    assert KillRequest() != Mount()


def test_lists_are_not_shared() -> None:
    Mount().options.append("ro")
    assert Mount().options == []


def test_an_event_in_an_envelope() -> None:
    event = events.TaskExit(container_id="c", id="c", pid=7, exit_status=137, exited_at=Timestamp.of(1_500_000_001_000_000_002))
    wrapped = AnyMessage.decode(AnyMessage.of(event).encode())
    assert wrapped.type_url == "containerd.events.TaskExit"
    assert wrapped.read(events.TaskExit) == event
    assert event.exited_at is not None
    assert event.exited_at.nanoseconds() == 1_500_000_001_000_000_002
    with pytest.raises(DecodeError, match="TaskStart was expected, not containerd.events.TaskExit"):
        wrapped.read(events.TaskStart)
    with pytest.raises(DecodeError, match="not a value without a type"):
        AnyMessage().read(events.TaskStart)
