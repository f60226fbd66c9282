"""Descriptors of protobuf as facts, one line each, which can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from google.protobuf.message import Message


def facts(files: FileDescriptorSet, package: str) -> dict[str, str]:
    """What is written down in a package: "field runtime.v1.PodIP.ip" is "1 optional string"."""
    found: dict[str, str] = {}
    for file in files.file:
        if file.package == package:
            found.update(facts_of_file(file))
    return found


def facts_of_file(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    """The facts of a file: names in full, and what is said of them."""
    yield f"package {file.package}", file.syntax
    for message in file.message_type:
        yield from facts_of_message(message, file.package)
    for enum in file.enum_type:
        yield from facts_of_enum(enum, file.package)
    for service in file.service:
        yield from facts_of_service(service, file.package)
    for extension in file.extension:
        yield f"extension {file.package}.{extension.name}", f"of {extension.extendee}: {field(extension)}"


def facts_of_message(message: DescriptorProto, scope: str) -> Iterator[tuple[str, str]]:
    """The facts of a message and of those in it."""
    name = f"{scope}.{message.name}"
    yield f"message {name}", options(message.options)
    for each in message.field:
        within = ""
        if each.HasField("oneof_index"):
            within = f" in {message.oneof_decl[each.oneof_index].name}"
        yield f"field {name}.{each.name}", field(each) + within
    for reserved in message.reserved_range:
        yield f"reserved {name} {reserved.start}", f"to {reserved.end - 1}"
    for nested in message.nested_type:
        yield from facts_of_message(nested, name)
    for enum in message.enum_type:
        yield from facts_of_enum(enum, name)


def facts_of_enum(enum: EnumDescriptorProto, scope: str) -> Iterator[tuple[str, str]]:
    """The facts of an enum."""
    name = f"{scope}.{enum.name}"
    yield f"enum {name}", options(enum.options)
    for value in enum.value:
        yield f"value {name}.{value.name}", f"{value.number}{options(value.options)}"
    for reserved in enum.reserved_range:
        yield f"reserved {name} {reserved.start}", f"to {reserved.end}"


def facts_of_service(service: ServiceDescriptorProto, scope: str) -> Iterator[tuple[str, str]]:
    """The facts of a service."""
    name = f"{scope}.{service.name}"
    yield f"service {name}", options(service.options)
    for method in service.method:
        sent, answered = ("stream " * flag for flag in (method.client_streaming, method.server_streaming))
        yield (
            f"method {name}.{method.name}",
            f"({sent}{method.input_type}) returns ({answered}{method.output_type}){options(method.options)}",
        )


def field(each: FieldDescriptorProto) -> str:
    """Number, label, type, presence and options of a field."""
    label = FieldDescriptorProto.Label.Name(each.label).removeprefix("LABEL_").lower()
    kind = each.type_name or FieldDescriptorProto.Type.Name(each.type).removeprefix("TYPE_").lower()
    presence = " with presence" if each.proto3_optional else ""
    return f"{each.number} {label} {kind}{presence}{options(each.options)}"


def options(found: Message) -> str:
    """Options by their names, those of CSI as well. What a generator of Go code is told is not among them."""
    return "".join(f" [{option.full_name.rpartition('.')[2]} = {value}]" for option, value in found.ListFields())


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """What is not the same, a line each, with its full name in front."""
    found = []
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours:
            found.append(f"{name}: missing, theirs is {theirs[name].strip() or 'there'}")
        elif name not in theirs:
            found.append(f"{name}: they have none")
        elif ours[name] != theirs[name]:
            found.append(f"{name}: ours is {ours[name].strip()!r}, theirs {theirs[name].strip()!r}")
    return found
