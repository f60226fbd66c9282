"""What is wrong with a bundle on this machine, all at once: the document, the plan, then a look for each step of the plan.

Nothing is made that outlives the looking, and nothing is changed or loaded. `run` fails for every error found here. What only
the kernel can say when it is asked (a value that a cgroup refuses, a mount over something odd) is found by running alone; where a
look cannot be sure, it gives a warning.
"""

from __future__ import annotations

from ocirt.containers.host import look, look_for, look_for_cgroups
from ocirt.errors import Error
from ocirt.plan.create import cgroup_paths, plan_create
from ocirt.spec.load import read_document
from ocirt.spec.whole import check_whole, take_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan import Host, Plan, Request
    from ocirt.spec.shape import Finding

_MOST = 100  # errors of a plan
_NEEDED = (("process", "args"), ("process", "cwd"), ("root", "path"), ("linux", "namespaces"))
_SECTIONS = ("/process", "/root", "/mounts", "/linux", "/hooks", "/hostname", "/domainname", "/annotations")


def examine(request: Request, config: str, rootless: bool | None = None) -> list[Finding]:
    """The findings on `<bundle>/<config>`, in no order. `rootless`: see --rootless.

    Raises Error if there is no such file, OSError when /proc cannot be read.
    """
    host = look()
    findings = _cgroups(host, request, rootless)
    try:
        spec = read_document(request.bundle, config)
    except Error as err:
        if err.subject != config:  # not read at all
            raise
        return [*findings, ("", err.message, err.hint or "one JSON document (RFC 8259) in UTF-8", "error")]
    found = check_whole(spec, not host.root)
    findings += found
    if any(finding[3] == "error" for finding in found):
        return findings
    look_for(host, spec)
    request.console = "socket" if spec["process"].get("terminal") else ""
    plan = _plan(spec, host, request, findings)

    from ocirt.cgroups.notes import ignored  # noqa: PLC0415
    from ocirt.containers.looks import Looks  # noqa: PLC0415

    seen = {finding[0] for finding in findings}
    for pointer, text in ignored(spec["linux"].get("resources"), host.layout.mode):
        if pointer not in seen:
            findings.append((pointer, text, "leave it out", "warning"))
    return [*findings, *Looks(spec, host, request, plan).findings]


def _cgroups(host: Host, request: Request, rootless: bool | None) -> list[Finding]:
    """Find who makes the cgroups. Where that is to be systemd and there is none, the document is judged as if there were."""
    try:
        look_for_cgroups(host, request, rootless)
    except Error as err:
        from ocirt.cgroups import units  # noqa: PLC0415  (only then)

        host.systemd = units.Manager(units.OLDEST, "", user=units.is_for_users() if rootless is None else rootless)
        return [error_finding(err, hint="leave --systemd-cgroup out")]
    return []


def _plan(spec: dict[str, Any], host: Host, request: Request, findings: list[Finding]) -> Plan:
    """The plan, without the sections that it cannot have, which are findings."""
    for _ in range(_MOST):
        try:
            return plan_create(spec, host, request, cgroup_paths(spec, host, request))
        except Error as err:
            finding = error_finding(err)
            if finding in findings:
                break
            findings.append(finding)
            if not _without(spec, err.subject):
                break
    return []


def error_finding(err: Error, pointer: str = "", hint: str = "leave it out") -> Finding:
    """The finding that an Error is: at its JSON pointer, or at `pointer` if its subject is none. `hint`: if it has none."""
    message = f"{err.message}: {err.cause}" if err.cause else err.message
    if err.subject.startswith(_SECTIONS):
        return (err.subject, message, err.hint or hint, "error")
    return (pointer, f"{err.subject}: {message}" if err.subject else message, err.hint or hint, "error")


def _without(spec: dict[str, Any], pointer: str) -> bool:
    """Take what an error is about out of the document, so that the next one can be found."""
    tokens = tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:])
    if len(tokens) < 2 or tokens[:2] in _NEEDED:
        return False
    # An entry of an array stays: the indices of the others would change. Then its section goes.
    return any(take_out(spec, tokens[:size]) for size in range(len(tokens), 1, -1))
