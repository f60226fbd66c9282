"""`ocirt --version`, line by line what callers of `runc --version` look for."""

from __future__ import annotations

import sys

from ocirt import __version__
from ocirt.cli import out
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options

SPEC_VERSION = "1.3.0"  # of the runtime specification, the newest that ocirt knows


def run(options: Options) -> int:
    """Print the version. Called `runc`, the program says so: go-runc takes no other first line."""
    name = "runc" if options.name == "runc" else "ocirt"
    lines = [
        f"{name} version {__version__}",
        f"commit: v{__version__}",
        f"spec: {SPEC_VERSION}",
        "python: {}.{}.{}".format(*sys.version_info[:3]),
    ]
    libseccomp = libseccomp_version()
    if libseccomp:
        lines.append(f"libseccomp: {libseccomp}")
    out("\n".join(lines) + "\n")
    return 0


def libseccomp_version() -> str:
    """The version of the libseccomp that ocirt uses, or "" if there is none."""
    from ocirt.seccomp import library  # noqa: PLC0415

    try:
        return ".".join(str(part) for part in library.load().version)
    except Error:
        return ""
