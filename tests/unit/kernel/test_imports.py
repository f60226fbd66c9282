"""Past its clone a child imports nothing: not by a step, and not by what a step calls (DESIGN, security rule 3).

The code of every step that a child may come to walk is read, with all functions of ocirt that it names.
"""

from __future__ import annotations

import dis
import types
from collections.abc import Iterator
from typing import Any

import pytest

from ocirt.kernel.run import Run, function
from ocirt.plan import PARENT
from tests.unit.plan.plans import calls, cases, executions, made, rootless_executions, staged_cases


def child_operations() -> list[str]:
    """All operations, and alternatives, of stage, init and start."""
    plans = [made(build(), on, asked) for build, on, asked in (cases() | staged_cases()).values()]
    plans += [*executions().values(), *rootless_executions().values()]
    return sorted({operation for plan in plans for side, _, operation, _ in calls(plan) if side != PARENT})


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code and that of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def named(found: Any) -> Iterator[Any]:
    """The functions and classes of ocirt that a function's code names: as globals, or as members of modules that are globals."""
    for code in codes(found.__code__):
        modules = [value for name in code.co_names if isinstance(value := found.__globals__.get(name), types.ModuleType)]
        for name in code.co_names:
            for value in (found.__globals__.get(name), *(getattr(module, name, None) for module in modules)):
                if getattr(value, "__module__", "").startswith("ocirt."):
                    if isinstance(value, types.FunctionType):
                        yield value
                    elif isinstance(value, type):
                        yield from (each for each in vars(value).values() if isinstance(each, types.FunctionType))


def imports(first: Any) -> list[str]:
    """`function: module` for each import statement that can be reached from a function."""
    seen = {first}
    todo = [first]
    found = []
    while todo:
        each = todo.pop()
        for code in codes(each.__code__):
            found += [
                f"{each.__module__}.{each.__qualname__} imports {instruction.argval}"
                for instruction in dis.get_instructions(code)
                if instruction.opname == "IMPORT_NAME"
            ]
        for other in named(each):
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return found


@pytest.mark.parametrize("operation", child_operations())
def test_a_child_s_step_imports_nothing(operation: str) -> None:
    assert imports(function(operation)) == []


@pytest.mark.parametrize("method", [Run.walk, Run.child, Run.become, Run._tell, Run._seal])
def test_neither_does_the_interpreter(method: Any) -> None:
    assert imports(method) == []


def test_an_import_is_found() -> None:
    assert imports(function("cgroup.check")) == ["ocirt.kernel.steps.cgroup.check imports ocirt.cgroups"]
    assert imports(function("process.clone_beside")) != []
    # By way of a function that another module has.
    assert any("load" in each for each in imports(function("program.load_filter")))


def test_there_are_many() -> None:
    assert len(child_operations()) > 45
