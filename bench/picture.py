"""Draw a trace as a picture.

- of `ocirt run --trace FILE`: `python bench/picture.py FILE docs/trace.svg`
- of ocirtd with the key `trace` (`bench/cri.py --trace FILE`), the start of one pod: `… --pod FILE docs/pod.svg`

Each process is a lane, each step a bar at its time; what took long enough carries its name. The longest are listed below.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

WIDTH, LEFT, LANE, TOP = 1200, 70, 46, 44
COLORS = {
    "cgroup": "#8e6bbf",
    "mount": "#3b7dd8",
    "tree": "#2f9e8f",
    "device": "#5aa6c4",
    "process": "#d9822b",
    "program": "#c23b3b",
    "namespace": "#6a8f3a",
    "sync": "#b9b9b9",
    "state": "#7a6a53",
    "user": "#d1a12a",
    "stdio": "#9a9a4a",
    "hooks": "#b04a8c",
    "journal": "#7a6a53",
    "commit": "#7a6a53",
    "RunPodSandbox": "#3b7dd8",
    "CreateContainer": "#2f9e8f",
    "StartContainer": "#c23b3b",
}
_FIRST, _LAST, _NETWORK = "RunPodSandbox", "StartContainer", "CNI add"


def read(path: Path) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """The spans of a trace, and the names of its lanes. The format lets the array's end be missing."""
    events = json.loads(path.read_text().rstrip().rstrip(",") + "]")
    lanes = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    spans = [event for event in events if event["ph"] == "X"]
    for span in spans:
        span.setdefault("args", {"pointer": ""})
    return spans, lanes


def start_of_pod(spans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The spans of one pod's start, from RunPodSandbox to StartContainer: of the middle one with a network. Raises ValueError."""
    firsts = sorted(span["ts"] for span in spans if span["name"] == _FIRST)
    lasts = sorted(span["ts"] + span["dur"] for span in spans if span["name"] == _LAST)
    if not firsts or len(firsts) != len(lasts):
        raise ValueError("a trace of pods that are started one after the other is expected")
    pods = [
        [span for span in spans if span["ts"] >= begin and span["ts"] + span["dur"] <= end]
        for begin, end in zip(firsts, lasts, strict=True)
    ]
    found = [pod for pod in pods if any(span["name"] == _NETWORK for span in pod)] or pods
    return found[len(found) // 2]


def draw(spans: list[dict[str, Any]], lanes: dict[int, str], what: str = "From the first step to execve") -> str:
    """The picture as SVG."""
    spans = sorted(spans, key=lambda span: -span["dur"])  # what is within another lies on it
    begin = min(span["ts"] for span in spans)
    end = max(span["ts"] + span["dur"] for span in spans)
    scale = (WIDTH - LEFT - 20) / (end - begin)
    used = [lane for lane in sorted(lanes) if any(span["tid"] == lane for span in spans)]
    base = TOP + len(used) * LANE
    longest = sorted((span for span in spans if not span["name"].startswith("sync.")), key=lambda span: -span["dur"])[:12]
    height = base + 60 + 20 * ((len(longest) + 1) // 2)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{what}: {(end - begin) / 1000:.1f} ms (grey: waiting for the other side)</text>',
    ]
    for milliseconds in range(int((end - begin) / 1000) + 1):
        x = LEFT + milliseconds * 1000 * scale
        out.append(f'<line x1="{x:.1f}" y1="{TOP - 12}" x2="{x:.1f}" y2="{base}" stroke="#e4e4e4"/>')
        out.append(f'<text x="{x + 2:.1f}" y="{TOP - 4}" fill="#888" font-size="10">{milliseconds} ms</text>')
    for row, lane in enumerate(used):
        y = TOP + row * LANE
        out.append(f'<text x="8" y="{y + 24}">{escape(lanes[lane])}</text>')
        for span in spans:
            if span["tid"] != lane:
                continue
            x, width = LEFT + (span["ts"] - begin) * scale, max(span["dur"] * scale, 0.6)
            color = COLORS.get(span["name"].partition(".")[0], "#777")
            title = escape(f"{span['name']} {span['args']['pointer']} {span['dur']:.0f} µs")
            out.append(
                f'<rect x="{x:.1f}" y="{y + 6}" width="{width:.1f}" height="28" fill="{color}"><title>{title}</title></rect>'
            )
            if width > 7 * len(span["name"]):
                out.append(f'<text x="{x + 4:.1f}" y="{y + 24}" fill="white" font-size="11">{escape(span["name"])}</text>')
    out.append(f'<text x="{LEFT}" y="{base + 28}" font-size="13">What took longest</text>')
    for number, span in enumerate(longest):
        x, y = LEFT + 560 * (number % 2), base + 50 + 20 * (number // 2)
        color = COLORS.get(span["name"].partition(".")[0], "#777")
        text = escape(f"{span['dur']:6.0f} µs  {lanes[span['tid']]}: {span['name']}  {span['args']['pointer']}")
        out.append(f'<rect x="{x}" y="{y - 10}" width="10" height="10" fill="{color}"/>')
        out.append(f'<text x="{x + 16}" y="{y}">{text}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


if __name__ == "__main__":
    is_pod = sys.argv[1] == "--pod"
    found, names = read(Path(sys.argv[-2]))
    if is_pod:
        found = start_of_pod(found)
    words = ("From RunPodSandbox to the end of StartContainer",) if is_pod else ()
    Path(sys.argv[-1]).write_text(draw(found, names, *words))
