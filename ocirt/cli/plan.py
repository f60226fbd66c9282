"""`ocirt plan`: show what would be done to run a bundle, without doing any of it."""

from __future__ import annotations

from ocirt import jsonlite
from ocirt.cli import out
from ocirt.cli.target import target
from ocirt.containers.create import Creation
from ocirt.kernel.run import function
from ocirt.plan import Request
from ocirt.plan.create import cgroup_paths, plan_create

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cli.options import Options
    from ocirt.plan import Call, Plan

_LONGEST = 100  # characters of an argument that are shown to a person


def run(options: Options, args: list[str]) -> int:
    """Print the plan of the bundle. Raises Error as `run` would, for what can be known without doing anything."""
    bundle, container_id = target(options, args)
    request = Request(
        container_id, bundle, f"{options.root}/{container_id}", state_root=options.root, cgroups=options.cgroup_manager
    )
    creation = Creation(options.root, request, options.get("config") or "config.json", options.rootless)
    request.console = "socket" if creation.spec["process"].get("terminal") else ""
    paths = cgroup_paths(creation.spec, creation.host, request)
    plan = plan_create(creation.spec, creation.host, request, paths)
    if options.get("json"):
        out(jsonlite.dumps([as_json(step) for step in plan], 2) + "\n")
    else:
        out(as_text(plan))
        for pointer, text in creation.warnings():
            out(f"warning {pointer}: {text}\n")
    return 0


def as_json(step: Any) -> dict[str, Any]:
    """A step as an object: its errors by number, each with what is done instead (null: go on)."""
    side, operation, arguments, pointer, errors = step
    found: dict[str, Any] = {"side": side, "operation": operation, "arguments": named(operation, arguments)}
    if pointer:
        found["pointer"] = pointer
    if errors:
        found["errors"] = {
            _errno(number): None if call is None else {"operation": call[0], "arguments": named(*call)}
            for number, call in errors.items()
        }
    return found


def named(operation: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Arguments by the names that the operation's function gives them."""
    code = function(operation).__code__
    names = code.co_varnames[1 : code.co_argcount]
    return {name: _plain(value) for name, value in zip(names, arguments, strict=True)}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _errno(number: int) -> str:
    from errno import errorcode  # noqa: PLC0415

    return errorcode.get(number, str(number))


def as_text(plan: Plan) -> str:
    """One line a step: side, operation with its arguments, pointer; below it what an error leads to."""
    lines = []
    for side, operation, arguments, pointer, errors in plan:
        line = f"{side:6}  {_call((operation, arguments))}"
        lines.append(f"{line}    {pointer}" if pointer else line)
        for number, call in (errors or {}).items():
            lines.append(f"          {_errno(number)}: {'go on' if call is None else _call(call)}")
    return "\n".join(lines) + "\n"


def _call(call: Call) -> str:
    operation, arguments = call
    words = []
    for name, value in named(operation, arguments).items():
        if name in ("mode", "mask") and type(value) is int:
            text = oct(value)
        elif name == "capabilities":
            text = "[" + ",".join(map(hex, value)) + "]"
        else:
            text = hex(value) if _is_flags(name, value) else jsonlite.dumps(value)
        words.append(f"{name}={text if len(text) <= _LONGEST else text[: _LONGEST - 1] + '…'}")
    return f"{operation}({', '.join(words)})"


def _is_flags(name: str, value: Any) -> bool:
    flags = ("flags", "kind", "kinds", "propagation", "attributes", "attr_set", "attr_clear", "effective", "permitted", "keep")
    return type(value) is int and name in flags
