"""Read config.json, process.json and resources, and refuse what cannot be run."""

from __future__ import annotations

from ocirt import paths
from ocirt.errors import Error
from ocirt.jsonlite import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.spec.shape import Finding

LIMIT = 32 << 20  # bytes; the largest config.json seen in the wild is a few hundred KiB


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

    spec = document
    if spec is None:
        spec = _parse(_read(paths.join(bundle, config), f"JSON specification file {config}"), config)
    findings = check(spec, rootless)
    refuse(findings, config)
    if warnings is not None:
        warnings += findings
    out: dict[str, Any] = spec
    return out


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
