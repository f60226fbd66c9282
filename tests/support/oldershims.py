"""ocirtd with shims that speak the first version of the protocol: `python -m tests.support.oldershims PLACE [ARGUMENTS]`.

They are ours without the methods that came later, from copies of their folders at PLACE.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.support.build import ROOT

LATER = ("StreamExec", "Attach", "Share")


def older(place: Path) -> dict[str, str]:
    """Folders with what the shims of before had, by those that they stand for."""
    homes = {}
    for floor, package in (("api", "ocirt_api"), ("shim", "ocirt_shim")):
        home = place / "older" / floor
        shutil.copytree(ROOT / floor / package, home / package, ignore=shutil.ignore_patterns("__pycache__"))
        homes[str(ROOT / floor)] = str(home)
    words = place / "older/api/ocirt_api/messages/shim.py"
    text = words.read_text()
    assert "\nPROTOCOL = 3\n" in text
    words.write_text(_without(text.replace("\nPROTOCOL = 3\n", "\nPROTOCOL = 1\n")))
    methods = place / "older/shim/ocirt_shim/shim.py"
    methods.write_text(_without(methods.read_text()))
    return homes


def _without(text: str) -> str:
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if not line.lstrip().startswith(tuple(f'"{name}":' for name in LATER))]
    assert len(kept) == len(lines) - len(LATER)
    return "".join(kept)


def main() -> int:
    """The daemon."""
    from ocirt_cri import zygote  # noqa: PLC0415  (found by PYTHONPATH)
    from ocirt_cri.main import main as daemon  # noqa: PLC0415

    homes = older(Path(sys.argv[1]))
    usual = zygote.usual_command

    def command() -> list[str]:
        return [":".join(homes.get(home, home) for home in word.split(":")) for word in usual()]

    zygote.usual_command = command
    return daemon(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
