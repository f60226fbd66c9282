"""`linux.devices` and `linux.resources.devices` (config-linux.md, mknod(2), cgroups device controller). Loaded only if met."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.spec.shape import Finding

_NUMBERS = (("major", 1 << 12), ("minor", 1 << 20))  # the bits that the kernel has for them (include/linux/kdev_t.h)


def check_devices(devices: list[dict[str, Any]], findings: list[Finding]) -> None:
    """Append the findings on the devices to make."""
    seen: dict[str, int] = {}
    for index, device in enumerate(devices):
        pointer = f"/linux/devices/{index}"
        path = device["path"]
        if path[:1] != "/":
            hint = f'seen from the container: "/{path}"' if path else 'such as "/dev/fuse"'
            findings.append((pointer + "/path", f'"{path}" is not an absolute path', hint, "error"))
        for name, stop in _NUMBERS:
            if name not in device:
                if device["type"] != "p":
                    hint = f'add "{name}", which `ls -l` shows on the host'
                    findings.append((pointer, f'a device of the type "{device["type"]}" lacks "{name}"', hint, "error"))
            elif device["type"] != "p" and not 0 <= device[name] < stop:
                findings.append((f"{pointer}/{name}", f"{device[name]} is out of range", f"0 to {stop - 1}", "error"))
        _mode(device, pointer, findings)
        other = devices[seen.setdefault(path, index)]
        if other is not device and any(device.get(name) != other.get(name) for name in ("type", "major", "minor")):
            hint = f"keep this one or /linux/devices/{seen[path]}"
            findings.append((pointer + "/path", f'"{path}" is given twice, as different devices', hint, "error"))


def _mode(device: dict[str, Any], pointer: str, findings: list[Finding]) -> None:
    mode = device.get("fileMode", 0)
    if mode & ~0o177777:
        findings.append((pointer + "/fileMode", f"{mode} is out of range", "0 to 4095; 0666 is 438", "error"))
    elif mode & 0o7777 > 0o777:
        # Hardly anybody wants a set-uid device; 666 in decimal looks like one.
        hint = f"JSON numbers are decimal: 0666 is 438, {mode} is 0{mode:o}"
        findings.append((pointer + "/fileMode", "has bits beyond 0777", hint, "warning"))


def check_rule(rule: dict[str, Any], pointer: str, findings: list[Finding]) -> None:
    """Append the findings on one rule of the device controller."""
    kind, access = rule.get("type", "a"), rule.get("access", "")
    if kind not in ("a", "b", "c", ""):
        findings.append((pointer + "/type", f'"{kind}" is not known here', '"c", "b", or "a" for all devices', "error"))
        return
    if not access or access.strip("rwm"):
        message = f'"{access}" is not an access' if access else "a rule without access does nothing"
        hint = '"access": some of r (read), w (write) and m (mknod), such as "rwm"'
        findings.append((pointer + "/access" if "access" in rule else pointer, message, hint, "error"))
    for name, _ in _NUMBERS:
        number = rule.get(name, -1)
        if not -1 <= number < 1 << 32:
            findings.append((f"{pointer}/{name}", f"{number} is out of range", "0 or more, or -1 for all", "error"))
        elif number >= 0 and kind in ("a", ""):
            message = f'has no effect: without the type "c" or "b" the rule {"allows" if rule["allow"] else "denies"} all devices'
            findings.append((f"{pointer}/{name}", message, 'add "type": "c" or "type": "b"', "warning"))
