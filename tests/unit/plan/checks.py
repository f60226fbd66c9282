"""What must hold for every plan, whatever it is for. Each function fails with what is wrong."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ocirt import jsonlite
from ocirt.cli.plan import as_json, as_text
from ocirt.kernel.run import Run, function
from tests.unit.plan.plans import Spec, calls, find
from tests.unit.spec.documents import get

if TYPE_CHECKING:
    from ocirt.plan import Plan

# What a step may come from although config.json does not say it: then the default does.
MAY_BE_ABSENT = {
    "/linux/cgroupsPath",
    "/linux/devices",
    "/linux/namespaces",
    "/linux/resources/devices",
    "/linux/rootfsPropagation",
    "/process/capabilities",
    "/process/capabilities/bounding",
    "/process/env",
    "/process/user",
    "/process/user/umask",
}
_PLAIN = (str, int, bytes, bool, type(None))
_SIMPLE = {"str": str, "int": int, "bool": bool}

# The slot that an operation fills, and the one that it needs: by the place among its arguments, or by name.
FILLS: dict[str, int | str] = {
    "mount.clone": 0,
    "mount.new": 0,
    "mount.cgroup": 0,
    "mount.remount": 0,
    "overlay.new": 0,
    "overlay.new_apart": 0,
    "namespace.open": 0,
    "idmap.make_namespace": 0,
    "process.open_target": "target",
    "process.open_target_root": "target/root",
}
NEEDS: dict[str, int | str] = {
    "mount.change": 0,
    "mount.propagate": 0,
    "mount.attach": 0,
    "mount.copy_up": 0,
    "idmap.map": 0,
    "namespace.join": 0,
    "namespace.postpone": 0,
    "namespace.join_target": "target",
    "process.change_root": 0,
    "anchor.attach": "anchor",
    "anchor.attach_root": "root",
    "tree.attach_root": "root",
}


def binds(plan: Plan) -> None:
    """Every call, alternatives too, fits the function that does it, in number and in type."""
    for _, index, operation, arguments in calls(plan):
        signature = inspect.signature(function(operation))
        try:
            bound = signature.bind(Run, *arguments)
        except TypeError as err:
            raise AssertionError(f"step {index}, {operation}{arguments}: {err}") from None
        for name, value in bound.arguments.items():
            wanted = _SIMPLE.get(str(signature.parameters[name].annotation))
            if wanted is not None:
                assert type(value) is wanted, f"step {index}, {operation}: {name}={value!r}"
        assert next(iter(signature.parameters)) == "run", operation


def points(plan: Plan, document: Spec) -> None:
    """Every pointer leads to something in the document, or to what may be left out."""
    for index, (_, operation, _, pointer, _) in enumerate(plan):
        if pointer and pointer not in MAY_BE_ABSENT:
            try:
                get(document, pointer)
            except LookupError:
                raise AssertionError(f"step {index}, {operation}: {pointer} leads nowhere") from None


def is_plain(plan: Plan) -> None:
    """A plan is data: it can be printed, and read back as JSON."""

    def look(value: Any) -> None:
        if isinstance(value, (tuple, list)):
            for item in value:
                look(item)
        elif isinstance(value, dict):
            for name, item in value.items():
                assert type(name) is str
                look(item)
        else:
            assert isinstance(value, _PLAIN), value

    for side, operation, arguments, pointer, errors in plan:
        assert type(side) is type(operation) is type(pointer) is str
        look(arguments)
        for errno, call in (errors or {}).items():
            assert type(errno) is int
            assert errno > 0
            look(call)
    objects = [as_json(each) for each in plan]
    assert json.loads(jsonlite.dumps(objects, 2)) == json.loads(json.dumps(objects))
    lines = as_text(plan).split("\n")
    assert len(lines) - 1 == len(plan) + sum(len(each[4] or {}) for each in plan)


def _slot(table: dict[str, int | str], operation: str, arguments: tuple[Any, ...]) -> str:
    key = table[operation]
    return key if isinstance(key, str) else str(arguments[key])


def slots(plan: Plan) -> None:
    """What a step needs has been opened by its own process, or by the one that this was cloned from, before the clone."""
    clones = find(plan, "process.clone")
    siblings = find(plan, "process.clone_sibling")
    assert len(clones) == 1
    filled: dict[str, set[str]] = {"parent": set(), "stage": set(), "init": set()}
    for index, (side, operation, arguments, _, errors) in enumerate(plan):
        process = "init" if side == "start" else side
        for name, words in [(operation, arguments), *[call for call in (errors or {}).values() if call]]:
            if name in NEEDS:
                slot = _slot(NEEDS, name, words)
                assert slot in filled[process], f"step {index}, {name}: nothing has filled {slot!r}"
            if name in FILLS:
                filled[process].add(_slot(FILLS, name, words))
        if index in clones:
            filled["stage" if arguments[0] == "stage" else "init"] |= filled["parent"]
        if index in siblings:
            filled["init"] |= filled["stage"]


def strings(value: Any) -> Iterator[str]:
    """All strings in a plain value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from (key, *strings(item))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from strings(item)


def paths_are_clean(plan: Plan) -> None:
    """Targets in the container are absolute, and have nothing in them that leads up."""
    places = {
        "mount.attach": 1,
        "mount.copy_up": 1,
        "mount.remount": 1,
        "mount.cgroup": 1,
        "tree.make_directory": 0,
        "device.make": 0,
    }
    for index, (_, operation, arguments, _, _) in enumerate(plan):
        if operation in places:
            target = arguments[places[operation]]
            assert target.startswith("/"), f"step {index}, {operation}{arguments}"
            assert ".." not in target.split("/"), f"step {index}, {operation}{arguments}"


def everything(plan: Plan, document: Spec) -> None:
    """All of the above."""
    binds(plan)
    points(plan, document)
    is_plain(plan)
    slots(plan)
    paths_are_clean(plan)
