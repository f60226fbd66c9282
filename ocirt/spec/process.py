"""What `process` means: the checks of config.json's process and of the process.json that `exec` takes (config.md, "Process")."""

from __future__ import annotations

from ocirt.spec.shape import MOST, PROCESS, Findings, TooManyError, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.spec.shape import Finding


def check_process_document(process: Any) -> list[Finding]:
    """The findings on a process.json. Removes members that are null."""
    findings = Findings()
    try:
        walk(process, PROCESS, "", findings)
        if not any(finding[3] == "error" for finding in findings):
            check_process(process, "", findings)
    except TooManyError:
        pass  # enough is known
    return findings


def check_process(process: dict[str, Any], pointer: str, findings: list[Finding]) -> None:
    """Append the findings on a process of the right shape."""
    args = process.get("args")
    if not args:
        hint = 'the program and its arguments: ["sh", "-c", "true"]'
        findings.append((pointer + "/args" if args is not None else pointer, "args must not be empty", hint, "error"))
    elif not args[0]:
        findings.append((pointer + "/args/0", "the name of the program is empty", 'such as "sh" or "/bin/sh"', "error"))
    cwd = process["cwd"]
    if not cwd.startswith("/"):
        message = f'"{cwd}" is not an absolute path' if cwd else "is empty"
        findings.append((pointer + "/cwd", message, f'seen from the container: "/{cwd}"', "error"))
    for index, entry in enumerate(process.get("env", ())):
        if entry.find("=") < 1:
            _environment(entry, f"{pointer}/env/{index}", findings)
    if capabilities := process.get("capabilities"):
        _capabilities(capabilities, pointer + "/capabilities", findings)
    if rlimits := process.get("rlimits"):
        _rlimits(rlimits, pointer + "/rlimits", findings)
    if not -1000 <= process.get("oomScoreAdj", 0) <= 1000:
        findings.append((pointer + "/oomScoreAdj", "is out of range", "an integer from -1000 to 1000", "error"))
    if user := process.get("user"):
        _user(user, pointer + "/user", findings)
    if size := process.get("consoleSize"):
        for name in ("height", "width"):
            if size[name] > 0xFFFF:
                findings.append((f"{pointer}/consoleSize/{name}", "is out of range", "an integer from 0 to 65535", "error"))
    if "scheduler" in process or "ioPriority" in process or "execCPUAffinity" in process:
        from ocirt.spec.scheduling import check_scheduling  # noqa: PLC0415  (only if one of them is there)

        check_scheduling(process, pointer, findings)


def _environment(entry: str, pointer: str, findings: list[Finding]) -> None:
    if "=" in entry:
        findings.append((pointer, f'"{entry}" has no name before the "="', "NAME=value", "error"))
    else:
        findings.append((pointer, f'"{entry}" has no "="', f'"{entry or "NAME"}=" for an empty value, or leave it out', "error"))


def _capabilities(capabilities: dict[str, list[str]], pointer: str, findings: list[Finding]) -> None:
    from ocirt.spec.capabilities import NUMBERS  # noqa: PLC0415  (many specs have none)

    for kind in ("bounding", "effective", "inheritable", "permitted", "ambient"):
        for index, name in enumerate(capabilities.get(kind, ())):
            if name not in NUMBERS:
                if len(findings) >= MOST:
                    continue  # a warning for which there is no room
                from ocirt.spec.names import nearest_after  # noqa: PLC0415  (only for a finding)

                near = nearest_after("CAP_", name, NUMBERS)
                hint = f'did you mean "{near}"?' if near else "see capabilities(7)"
                findings.append((f"{pointer}/{kind}/{index}", f'"{name}" is not known and is ignored', hint, "warning"))
    permitted = frozenset(capabilities.get("permitted", ()))
    for index, name in enumerate(capabilities.get("effective", ())):
        if name in NUMBERS and name not in permitted:
            hint = f'add "{name}" to {pointer}/permitted, or take it out here'
            findings.append((f"{pointer}/effective/{index}", f'"{name}" is effective but not permitted', hint, "error"))
    if ambient := capabilities.get("ambient"):
        inheritable = frozenset(capabilities.get("inheritable", ()))
        lost = [name for name in ambient if name in NUMBERS and not (name in permitted and name in inheritable)]
        if lost:
            hint = f"an ambient capability is in {pointer}/permitted and {pointer}/inheritable as well"
            findings.append((pointer + "/ambient", "cannot be ambient and are left out: " + ", ".join(lost), hint, "warning"))


def _rlimits(rlimits: list[dict[str, Any]], pointer: str, findings: list[Finding]) -> None:
    from ocirt.spec.rlimits import NUMBERS  # noqa: PLC0415  (many specs have none)

    seen: dict[str, int] = {}
    for index, limit in enumerate(rlimits):
        name = limit["type"]
        if name not in NUMBERS:
            from ocirt.spec.names import nearest_after  # noqa: PLC0415  (only for a finding)

            near = nearest_after("RLIMIT_", name, NUMBERS)
            hint = f'did you mean "{near}"?' if near else "one of " + ", ".join(NUMBERS)
            findings.append((f"{pointer}/{index}/type", f'"{name}" is not a resource limit', hint, "error"))
        elif name in seen:
            hint = f"keep this one or {pointer}/{seen[name]}"
            findings.append((f"{pointer}/{index}/type", f"{name} is given twice", hint, "error"))
        elif limit["soft"] > limit["hard"]:
            hint = f"soft at most hard, which is {limit['hard']}"
            findings.append((f"{pointer}/{index}/soft", f"the soft limit {limit['soft']} is above the hard one", hint, "error"))
        seen.setdefault(name, index)


def _user(user: dict[str, Any], pointer: str, findings: list[Finding]) -> None:
    if user.get("umask", 0) > 0o777:
        mask = user["umask"]
        hint = f"JSON numbers are decimal: umask 022 is 18, {mask} is 0{mask:o}"
        findings.append((pointer + "/umask", "has bits beyond 0777, which are ignored", hint, "warning"))
    for name in ("uid", "gid"):
        if user.get(name) == 0xFFFFFFFF:
            findings.append((f"{pointer}/{name}", "4294967295 stands for no one", "an integer from 0 to 4294967294", "error"))
