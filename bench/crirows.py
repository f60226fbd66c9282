"""Rows of bench/cri.py that need more than a pod at a time: probes, lists, scale, many containers, a writer beside."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.criendpoints import Endpoint, Pod
from ocirt_api.cri import api_pb2 as cri

_TICK = os.sysconf("SC_CLK_TCK")
_CLIENTS = 16  # probes that may be under way
_CONTAINERS = 10
_WRITER = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
block, begin, number = b"x" * (1 << 20), time.monotonic(), 0
while True:
    os.pwrite(fd, block, number % 512 << 20)
    number += 1
    time.sleep(max(0, begin + number / float(sys.argv[2]) - time.monotonic()))
"""


def spent(pid: int) -> float:
    """The seconds of CPU of a process and of the children that it has waited for; 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(word) for word in text.rpartition(")")[2].split()[11:15]) / _TICK


def probes(endpoint: Endpoint, rate: int, seconds: float) -> tuple[float, list[float]]:
    """Seconds of CPU of all processes of an endpoint for so many ExecSync a second; and how long each took, in milliseconds.

    Raises what a call raises, AssertionError if the endpoint cannot keep up.
    """
    pod = endpoint.describe(host_network=True)
    pod.start()
    taken: list[float] = []
    slots = threading.BoundedSemaphore(_CLIENTS)

    def probe() -> None:
        begin = time.perf_counter()
        try:
            pod.execute("/bin/true")
        finally:
            slots.release()
        taken.append((time.perf_counter() - begin) * 1000)

    try:
        pod.execute("/bin/true")
        before = {pid: spent(pid) for pid in endpoint.processes()}
        begin = time.monotonic()
        with ThreadPoolExecutor(_CLIENTS) as clients:
            asked = []
            for number in range(int(rate * seconds)):
                time.sleep(max(0.0, begin + number / rate - time.monotonic()))
                slots.acquire()
                asked.append(clients.submit(probe))
            for one in asked:
                one.result()
        used = sum(spent(pid) - before.get(pid, 0.0) for pid in endpoint.processes())
    finally:
        pod.end()
    return used, taken


def crowded(endpoint: Endpoint, number: int) -> list[Pod]:
    """So many pods that run, in the host's network. What fails leaves none."""
    pods: list[Pod] = []
    try:
        for _ in range(number):
            pods.append(endpoint.describe(host_network=True))
            pods[-1].start()
    except BaseException:
        empty(pods)
        raise
    return pods


def empty(pods: list[Pod]) -> None:
    """End pods, a few at a time."""
    with ThreadPoolExecutor(4) as clients:
        list(clients.map(Pod.end, pods))


def lists(endpoint: Endpoint) -> Iterator[tuple[str, float]]:
    """Each List RPC, and how long it takes, in milliseconds."""
    calls = endpoint.calls
    asked: tuple[tuple[str, Any, Any], ...] = (
        ("ListPodSandbox", calls.ListPodSandbox, cri.ListPodSandboxRequest()),
        ("ListContainers", calls.ListContainers, cri.ListContainersRequest()),
        ("ListContainerStats", calls.ListContainerStats, cri.ListContainerStatsRequest()),
        ("ListPodSandboxStats", calls.ListPodSandboxStats, cri.ListPodSandboxStatsRequest()),
    )
    for name, call, request in asked:
        begin = time.perf_counter()
        call(request)
        yield name, (time.perf_counter() - begin) * 1000


def starts(endpoint: Endpoint, number: int) -> list[float]:
    """How long pods with a network take to start, in milliseconds; they are ended at once."""
    taken = []
    for _ in range(number):
        pod = endpoint.describe(host_network=False)
        begin = time.perf_counter()
        pod.start()
        taken.append((time.perf_counter() - begin) * 1000)
        pod.end()
    return taken


@contextmanager
def of_ten(endpoint: Endpoint) -> Iterator[Pod]:
    """A pod of ten containers; `execute` runs in the last."""
    pod = endpoint.describe(host_network=True)
    pod.start()
    try:
        for _ in range(1, _CONTAINERS):
            pod.add()
        yield pod
    finally:
        pod.end()


@contextmanager
def writer(folder: Path, rate: int) -> Iterator[None]:
    """For a block: somebody writes so many MiB a second to a file there."""
    place = folder / "written"
    process = subprocess.Popen([sys.executable, "-I", "-c", _WRITER, str(place), str(rate)])
    try:
        time.sleep(1)
        yield
        assert process.poll() is None, "the writer has ended"
    finally:
        process.kill()
        process.wait()
        place.unlink(missing_ok=True)
