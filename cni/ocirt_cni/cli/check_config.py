"""`ocirt-cni check-config`."""

from __future__ import annotations

import os

from ocirt_cni.cli.checks import networks
from ocirt_cni.cli.checks.kinds import ERROR
from ocirt_cni.cli.options import Options
from ocirt_cni.cli.output import out, show_json


def run(given: Options) -> int:
    """Print all findings; 1 if one of them is an error. Raises Error."""
    place = given.arguments[0] if given.arguments else given.folder
    found = networks.check_folder(place, given.path) if os.path.isdir(place) else networks.check_file(place, given.path)
    if given.get("json"):
        show_json([one.document() for one in found])
    else:
        out("".join(f"{one}\n" for one in found))
    return 1 if any(one.level == ERROR for one in found) else 0
