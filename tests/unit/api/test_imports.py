"""What a shim imports: few modules, and none that costs memory in every fork."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

API = Path(__file__).resolve().parents[3] / "api"
CODE = """\
import sys
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
from ocirt_api import status, ttrpc
from ocirt_api.messages import bootstrap, cgroups_v1, cgroups_v2, events, google, options, task, types
print(*sorted(name for name in set(sys.modules) - before if not name.startswith("ocirt_api")))
"""


def test_the_codec_needs_struct_alone() -> None:
    done = subprocess.run([sys.executable, "-I", "-S", "-c", CODE, API], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"__future__", "_struct", "struct"}
