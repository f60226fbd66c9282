"""`ocirt-cni list`."""

from __future__ import annotations

from ocirt_cni.cli.options import Options
from ocirt_cni.cli.output import out, show_json, table
from ocirt_cni.runner import lists


def run(given: Options) -> int:
    """Print the folder's networks, then what is wrong with files. Raises Error; returns 1 if a file has an error."""
    networks, errors = lists.scan(given.folder)
    if given.get("json"):
        found = [
            {"name": one.name, "cniVersion": one.version, "plugins": one.types(), "file": one.path, "hidden": hidden}
            for one, hidden in _with_hidden(networks)
        ]
        show_json({"networks": found, "errors": [str(err) for err in errors]})
    else:
        rows = [
            (one.name, one.version, " ".join(one.types()), one.path + (" (hidden by one above)" if hidden else ""))
            for one, hidden in _with_hidden(networks)
        ]
        out(table(("NETWORK", "CNI", "PLUGINS", "FILE"), rows))
        out("".join(f"{err}\n" for err in errors))
    return 1 if errors else 0


def _with_hidden(networks: list[lists.Network]) -> list[tuple[lists.Network, bool]]:
    """Whether a network of the same name is found before it."""
    seen: set[str] = set()
    found = []
    for one in networks:
        found.append((one, one.name in seen))
        seen.add(one.name)
    return found
