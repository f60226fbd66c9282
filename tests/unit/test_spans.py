"""The trace of a node."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench import picture
from tests.support.build import ROOT

_PROGRAM = """
import sys
from ocirt import spans
with spans.Span("job", "nobody sees it"):
    pass
assert spans.now() == 0
spans.to("")
assert not spans.on()
spans.to(sys.argv[1], anew=True)
for name in ("RunPodSandbox", "StartContainer"):
    with spans.Span("rpc", name), spans.Span("job", "CNI add"):
        pass
"""


def test_spans_of_a_process(tmp_path: Path) -> None:
    place = tmp_path / "trace"
    subprocess.run([sys.executable, "-c", _PROGRAM, place], env={"PYTHONPATH": str(ROOT)}, check=True, timeout=60)
    assert isinstance(json.loads(place.read_text().rstrip().rstrip(",") + "]"), list)
    found, lanes = picture.read(place)
    assert [(lanes[one["tid"]], one["name"]) for one in found] == [
        ("job", "CNI add"),
        ("rpc", "RunPodSandbox"),
        ("job", "CNI add"),
        ("rpc", "StartContainer"),
    ]
    assert all(one["dur"] >= 0 for one in found)
    drawn = picture.draw(picture.start_of_pod(found), lanes, "A pod")
    assert drawn.startswith("<svg")
    assert "A pod" in drawn
