"""Each message class of ours beside the class that protobuf makes of its .proto file."""

from __future__ import annotations

import math
from functools import cache
from types import ModuleType
from typing import Any

from google.protobuf import any_pb2, empty_pb2, timestamp_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message as Made
from hypothesis import strategies as st

from ocirt_api.containerd import (
    bootstrap_pb2,
    cgroups_v1_pb2,
    cgroups_v2_pb2,
    envelope_pb2,
    events_pb2,
    forward_pb2,
    mount_pb2,
    process_pb2,
    runcoptions_pb2,
    runtimeinfo_pb2,
    runtimeoptions_pb2,
    task_v2_pb2,
    task_v3_pb2,
)
from ocirt_api.message import Message
from ocirt_api.messages import bootstrap, cgroups_v1, cgroups_v2, events, google, options, shim, task, types
from ocirt_api.shim import shim_pb2
from ocirt_api.ttrpc import envelope, status_pb2
from ocirt_api.ttrpc import envelope_pb2 as ttrpc_pb2

OURS = (bootstrap, cgroups_v1, cgroups_v2, events, google, options, shim, task, types, envelope)
# Where protobuf's classes of the same names are.
THEIRS: dict[ModuleType, tuple[ModuleType, ...]] = {
    bootstrap: (bootstrap_pb2,),
    cgroups_v1: (cgroups_v1_pb2,),
    cgroups_v2: (cgroups_v2_pb2,),
    events: (events_pb2, envelope_pb2, forward_pb2),
    google: (any_pb2, empty_pb2, timestamp_pb2),
    options: (runcoptions_pb2,),
    shim: (shim_pb2,),
    task: (task_v2_pb2, task_v3_pb2),
    types: (mount_pb2, process_pb2, runtimeinfo_pb2),
    envelope: (ttrpc_pb2, status_pb2),
}
RENAMED: dict[type[Message], type[Made]] = {options.RuntimeOptions: runtimeoptions_pb2.Options}


def classes(module: ModuleType) -> list[type[Message]]:
    """The messages that a module of ours defines."""
    found = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Message)]
    return [each for each in found if each.__module__ == module.__name__]


def made(ours: type[Message], module: ModuleType) -> list[type[Made]]:
    """protobuf's classes of the same name: one, or two for what versions 2 and 3 of the Task service share."""
    if ours in RENAMED:
        return [RENAMED[ours]]
    return [vars(each)[ours.__name__] for each in THEIRS[module] if ours.__name__ in vars(each)]


PAIRS = [(ours, theirs) for module in OURS for ours in classes(module) for theirs in made(ours, module)]
NAMES = [theirs.DESCRIPTOR.full_name for _, theirs in PAIRS]

_INTEGERS = {
    FieldDescriptor.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_UINT64: (0, (1 << 64) - 1),
    FieldDescriptor.TYPE_ENUM: (-(1 << 31), (1 << 31) - 1),
}


def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return messages(field.message_type)
    if field.type in _INTEGERS:
        low, high = _INTEGERS[field.type]
        return st.integers(low, high) | st.integers(max(low, -2), 300)
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return st.floats(allow_nan=False)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=300)
    assert field.type == FieldDescriptor.TYPE_STRING, field.full_name
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@cache
def messages(descriptor: Any) -> st.SearchStrategy[dict[str, Any]]:
    """The fields of any message of that type, by name; some of them left out."""

    def strategy(field: FieldDescriptor) -> st.SearchStrategy[Any]:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
            return st.dictionaries(_values(key), _values(value), max_size=3)
        return st.lists(_values(field), max_size=3) if field.is_repeated else _values(field)

    return st.fixed_dictionaries({}, optional={field.name: strategy(field) for field in descriptor.fields})


def ours_of(cls: type[Message], values: dict[str, Any]) -> Message:
    """A message of ours with these fields."""
    found = cls(**values)
    for field in cls.FIELDS.values():
        value = getattr(found, field.name)
        if field.of is not None and value:
            parts = [ours_of(field.of, each) for each in value] if isinstance(value, list) else ours_of(field.of, value)
            setattr(found, field.name, parts)
        elif field.of is not None and value == {}:
            setattr(found, field.name, field.of())
    return found


def same(one: Message, other: Message) -> bool:
    """Are both messages equal, where a NaN is equal to itself?"""
    for field in one.FIELDS.values():
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, float) and math.isnan(a):
            if not math.isnan(b):
                return False
        elif isinstance(a, Message):
            if not isinstance(b, Message) or not same(a, b):
                return False
        elif a != b:
            return False
    return type(one) is type(other)
