"""Confinement by AppArmor and SELinux: profile and labels of the process, labels of mounts. Loaded only if a document has some.

A process may write what it is to become only for itself, by descriptors that it has opened since its rights last changed, and the
next execve(2) puts it into force. So it is written through the host's /proc, while that is in sight and cannot be of the image's
making, and init waits for `start` itself: the waiter's execve would be the next one.
"""

from __future__ import annotations

from errno import ENOENT

from ocirt.errors import Error
from ocirt.plan import INIT, step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.plan import Errors, Host, Plan
    from ocirt.plan.process import Process


def need(host: Host, module: str, pointer: str) -> None:
    """Raise Error for a security module that this host has not enabled."""
    if module not in host.modules:
        message = f"not supported: {module} is not enabled on this host"
        raise Error("unsupported", message, subject=pointer, hint="leave it out, or make it empty")


def of_process(run: Process, side: str, host: Host) -> Plan:
    """Have `side`, or what it clones, confined from its next execve(2) on. Raises Error for a module that is missing."""
    plan: Plan = []
    if profile := run.process.get("apparmorProfile"):
        pointer = run.pointer + "/apparmorProfile"
        need(host, "AppArmor", pointer)
        word = "exec " + profile
        before_5_8: Errors = {ENOENT: ("label.write", ("attr/exec", word))}
        plan.append(step(side, "label.write", "attr/apparmor/exec", word, at=pointer, errors=before_5_8))
    if label := run.process.get("selinuxLabel"):
        pointer = run.pointer + "/selinuxLabel"
        need(host, "SELinux", pointer)
        plan.append(step(side, "label.write", "attr/exec", label, at=pointer))
    return plan


def keyring(run: Process, joining: Plan) -> Plan:
    """The session keyring gets the process's label."""
    label, pointer = run.process["selinuxLabel"], run.pointer + "/selinuxLabel"
    return [
        step(INIT, "label.write", "attr/keycreate", label, at=pointer),
        *joining,
        step(INIT, "label.write", "attr/keycreate", "", at=pointer),
    ]
