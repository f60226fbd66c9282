"""resolv.conf(5), as far as a result of CNI has room for it."""

from __future__ import annotations

from ocirt_cni.errors import IO_FAILURE, Error
from ocirt_cni.results import DNS


def read(path: str, where: str) -> DNS:
    """What a file says. Raises Error(IO_FAILURE) that names `where` its path stands."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return parse(file.read())
    except OSError as err:
        raise Error(IO_FAILURE, f"{path} cannot be read", subject=where, cause=err.strerror or "") from None


def parse(text: str) -> DNS:
    """What a text says. Lines of other kinds, and without a value, are passed over."""
    found = DNS()
    for line in text.splitlines():
        keyword, *values = line.split() or [""]
        if not values or keyword[0] in "#;":
            continue
        if keyword == "nameserver":
            found.nameservers.append(values[0])
        elif keyword == "domain":
            found.domain = values[0]
        elif keyword == "search":
            found.search += values
        elif keyword == "options":
            found.options += values
    return found
