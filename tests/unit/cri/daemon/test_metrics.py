"""What the daemon says of itself."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri import config, logs
from ocirt_cri.metrics.address import address
from ocirt_cri.metrics.calls import Calls
from ocirt_cri.metrics.node import process
from ocirt_cri.metrics.server import Server
from ocirt_cri.metrics.text import Family, Histogram
from ocirt_cri.model import Sandbox

_SAMPLE = re.compile(r'[a-z_]+(\{([a-z]+="(\\.|[^"\\\n])*",?)+\})? \S+')


@given(st.text(), st.text(), st.floats(allow_nan=False))
def test_whatever_a_label_is_the_text_is_one(text: str, words: str, value: float) -> None:
    found = str(Family("name", "gauge", words).add(value, {"label": text}))
    head, kind, sample, rest = found.split("\n")
    assert (head.startswith("# HELP name "), kind, rest) == (True, "# TYPE name gauge", "")
    assert _SAMPLE.fullmatch(sample)
    assert float(sample.rpartition(" ")[2]) == value


def test_a_histogram() -> None:
    found = Histogram("took_seconds", "Time.", (0.1, 1))
    for seconds in (0.05, 0.1, 0.5, 7):
        found.observe(seconds, (("method", "M"),))
    lines = str(found.family()).splitlines()[2:]
    assert lines == [
        'took_seconds_bucket{method="M",le="0.1"} 2',
        'took_seconds_bucket{method="M",le="1"} 3',
        'took_seconds_bucket{method="M",le="+Inf"} 4',
        'took_seconds_sum{method="M"} 7.6500000000000004',
        'took_seconds_count{method="M"} 4',
    ]


def test_calls_are_counted_by_method_and_status() -> None:
    calls = Calls()
    for code in ("OK", "OK", "NOT_FOUND"):
        calls.note("Version", code, 0.002)
    text = "".join(map(str, calls.families()))
    assert 'ocirtd_rpc_total{method="Version",code="OK"} 2\n' in text
    assert 'ocirtd_rpc_total{method="Version",code="NOT_FOUND"} 1\n' in text
    assert 'ocirtd_rpc_seconds_count{method="Version"} 3\n' in text


def test_the_process() -> None:
    found = dict(line.rsplit(" ", 1) for one in process() for line in str(one).splitlines() if not line.startswith("#"))
    assert float(found["process_resident_memory_bytes"]) > 1 << 20
    assert int(found["process_threads"]) >= 1
    assert 2 < int(found["process_open_fds"]) <= int(found["process_max_fds"])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("unix:///run/x.sock", ("/run/x.sock", 0)),
        ("127.0.0.1:9100", ("127.0.0.1", 9100)),
        ("[::1]:9100", ("::1", 9100)),
    ],
)
def test_addresses(text: str, found: tuple[str, int]) -> None:
    assert address(text) == found


@pytest.mark.parametrize(
    "text", ["0.0.0.0:9100", "10.0.0.1:9100", "127.0.0.1", "127.0.0.1:0", "unix://x", "localhost:1", ":9100"]
)
def test_addresses_that_others_would_reach_or_nobody(text: str) -> None:
    with pytest.raises(Error, match=r"file: metrics\.listen"):
        config.parse(f'[metrics]\nlisten = "{text}"'.encode(), "file", {})


def ask(path: Path, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(request)
        found = b""
        while data := client.recv(1 << 16):
            found += data
    return found


def test_what_is_answered(tmp_path: Path) -> None:
    place = tmp_path / "m.sock"
    place.write_text("left by an earlier one")
    why = ""

    async def run() -> dict[bytes, bytes]:
        nonlocal why
        made = Server(lambda: "numbers 1\n", lambda: why)
        await made.start(f"unix://{place}")
        assert place.stat().st_mode & 0o777 == 0o660
        found = {}
        for path in (b"/metrics?x=1", b"/healthz", b"/else"):
            found[path] = await asyncio.to_thread(ask, place, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        why = "recovering"
        found[b"unwell"] = await asyncio.to_thread(ask, place, b"GET /healthz HTTP/1.0\r\n\r\n")
        found[b"post"] = await asyncio.to_thread(ask, place, b"POST /metrics HTTP/1.1\r\n\r\n")
        found[b"bad"] = await asyncio.to_thread(ask, place, b"nonsense\r\n\r\n")
        found[b"long"] = await asyncio.to_thread(ask, place, b"GET /" + b"x" * 16000)
        await made.stop()
        return found

    found = asyncio.run(run())
    statuses = {name: data.split(b" ", 2)[1] for name, data in found.items() if data}
    assert statuses == {
        b"/metrics?x=1": b"200",
        b"/healthz": b"200",
        b"/else": b"404",
        b"unwell": b"503",
        b"post": b"405",
        b"bad": b"400",
    }
    assert found[b"/metrics?x=1"].endswith(b"Connection: close\r\n\r\nnumbers 1\n")
    assert found[b"unwell"].endswith(b"recovering\n")
    assert not place.exists()


def test_lines_of_the_log_name_what_they_are_about(capsys: pytest.CaptureFixture[str]) -> None:
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        logs.set_up("info", "json")
        sandbox = Sandbox("p1", cri.PodSandboxConfig(), cri.PodSandboxStatus(id="p1"))
        logging.getLogger("ocirt_cri.x").info("pod %s runs", "p1", extra=logs.of_pod(sandbox))
        logging.getLogger("ocirt_cri.x").info("nothing")
        sys.stderr.flush()
    finally:
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["msg"], first["pod"], first["part"]) == ("pod p1 runs", "p1", "x")
    assert set(second) == {"time", "level", "part", "msg"}
