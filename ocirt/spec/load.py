"""Read config.json, process.json and resources, and refuse what cannot be run."""

from __future__ import annotations

from ocirt import paths
from ocirt.errors import Error
from ocirt.jsonlite import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.spec.shape import Finding

# The largest config.json seen in the wild has a few hundred KiB. These keep the reading of any file below 200 MiB.
LIMIT = 16 << 20  # bytes
_MOST_VALUES = 1 << 19  # in a file of more than _MANY bytes: each costs about 100 bytes
_MANY = 1 << 20


def read_spec(
    bundle: str,
    config: str = "config.json",
    *,
    rootless: bool = False,
    warnings: list[Finding] | None = None,
    document: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The validated contents of `<bundle>/<config>`, or `document` in their place.

    Members that are null are left out, as Go's decoder has it.

    `rootless`: the runtime runs without root, so that a user namespace is needed and some settings cannot be had. `warnings` gets
    the findings that are none.
    Raises Error: "invalid" or "unsupported" with the JSON pointer as subject, for the first finding that is an error.
    """
    from ocirt.spec.check import check  # noqa: PLC0415  (process.json and resources don't need it)

    spec = read_document(bundle, config) if document is None else document
    findings = check(spec, rootless)
    refuse(findings, config)
    if warnings is not None:
        warnings += findings
    out: dict[str, Any] = spec
    return out


def read_document(bundle: str, config: str = "config.json") -> Any:
    """What stands in `<bundle>/<config>`, not yet judged. Raises Error("invalid") for what is no JSON."""
    return _parse(_read(paths.join(bundle, config), f"JSON specification file {config}"), config)


def read_process(path: str) -> dict[str, Any]:
    """The validated contents of a process.json (`exec --process`): what config.json has in `process`.

    Raises Error as `read_spec`.
    """
    from ocirt.spec.process import check_process_document  # noqa: PLC0415

    process = _parse(_read(path, f"JSON process file {path}"), "process.json")
    refuse(check_process_document(process), "process.json")
    out: dict[str, Any] = process
    return out


def read_resources(data: bytes) -> dict[str, Any]:
    """The resources of `update --resources`, what config.json has in `linux.resources`, of the right shape.

    What they mean depends on what the container has: see ocirt.containers.update. Raises Error as `read_spec`.
    """
    from ocirt.spec.shape import RESOURCES, walk  # noqa: PLC0415

    resources = _parse(data, "resources")
    findings: list[Finding] = []
    walk(resources, RESOURCES, "", findings)
    refuse(findings, "resources")
    out: dict[str, Any] = resources
    return out


def refuse(findings: list[Finding], document: str) -> None:
    """Raise the first finding that is an error. `document` is the subject where the pointer is that of the whole document."""
    for pointer, message, hint, severity in findings:
        if severity == "error":
            code = "unsupported" if message.startswith("not supported") else "invalid"
            raise Error(code, message, subject=pointer or document, hint=hint)


def _parse(data: bytes, what: str) -> Any:
    # Each value but the first of an object or array comes after a comma, and strings rarely have as many.
    if len(data) > _MANY and data.count(b",") + data.count(b"[") + data.count(b"{") > _MOST_VALUES:
        raise Error("invalid", f"has more than {_MOST_VALUES} values", subject=what)
    try:
        return loads(data, what)
    except RecursionError:  # from Python 3.12 on the parser goes deeper than Python code can follow
        raise Error("invalid", "nested too deeply", subject=what) from None


def _read(path: str, what: str) -> bytes:
    try:
        data = paths.read_bytes(path, LIMIT + 1)
    except FileNotFoundError:
        raise Error("invalid", f"{what} not found", hint="`ocirt spec` writes one, --bundle names its directory") from None
    except OSError as err:
        raise Error("invalid", f"{what} cannot be read", cause=err.strerror or str(err)) from None
    if len(data) > LIMIT:
        raise Error("invalid", f"{what} is larger than {LIMIT >> 20} MiB")
    return data
