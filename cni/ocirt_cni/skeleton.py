"""A plugin as an executable: environment and standard input in, a result or an error out (SPEC.md, section 2).

What it says goes to the standard output, also an error; the standard error is for a person.
"""

from __future__ import annotations

import posix
import sys

from ocirt_cni import call, files, jsonio, versions
from ocirt_cni.errors import INTERNAL, IO_FAILURE, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_BLOCK = 1 << 16


def main(name: str) -> None:
    """Run the plugin of that name, and end the process."""
    version = versions.CURRENT
    try:
        environment = files.environment()
        if not environment.get("CNI_COMMAND"):
            _introduce(name)
            return
        answer = run(name, environment, _read())
    except Error as err:
        answer, code = err.document(version), 1
    except Exception as err:  # noqa: BLE001  (whoever calls reads JSON)
        answer, code = Error(INTERNAL, f"{type(err).__name__}: {err}").document(version), 1
    else:
        code = 1 if answer is not None and "code" in answer else 0
    if answer is not None:
        _write(jsonio.dumps(answer) + "\n")
    sys.exit(code)


def run(name: str, environment: Mapping[str, str], data: bytes) -> dict[str, Any] | None:
    """What the plugin prints, if it prints anything. Errors are among it."""
    command = environment.get("CNI_COMMAND", "")
    if command == call.VERSION:
        return _version(data)
    version = versions.CURRENT
    try:
        conf = jsonio.load_object(data, "the network configuration")
        named = conf.get("cniVersion")
        version = named if isinstance(named, str) and named else versions.DEFAULT
        one = call.from_environment(environment, conf)
        from ocirt_cni import plugins  # noqa: PLC0415  (what was refused until here needs none of it)

        result = plugins.invoke(name, one)
    except Error as err:
        return err.document(version)
    return None if result is None else result.document(version)


def _version(data: bytes) -> dict[str, Any]:
    """The answer to VERSION; in the version that is asked for, if the input names one that is known."""
    try:
        asked = jsonio.load_object(data, "the input").get("cniVersion")
    except Error:  # the specification has input here, and libcni's skeleton does not read it
        asked = None
    version = asked if asked in versions.SUPPORTED else versions.CURRENT
    return {"cniVersion": version, "supportedVersions": list(versions.SUPPORTED)}


def _introduce(name: str) -> None:
    text = f"ocirt's CNI plugin {name}\nCNI protocol versions supported: {', '.join(versions.SUPPORTED)}\n"
    posix.write(2, text.encode())


def _read() -> bytes:
    blocks = []
    try:
        while block := posix.read(0, _BLOCK):
            blocks.append(block)
    except OSError as err:
        raise Error(IO_FAILURE, "the standard input cannot be read", cause=err.strerror or "") from None
    return b"".join(blocks)


def _write(text: str) -> None:
    data = text.encode(errors="replace")  # half of a surrogate pair has no bytes, and JSON may name one
    while data:
        data = data[posix.write(1, data) :]
