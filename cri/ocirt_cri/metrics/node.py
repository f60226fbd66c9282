"""Numbers of the daemon: pods, containers, what it has under way, and its process."""

from __future__ import annotations

import os
import resource
from collections import Counter
from typing import TYPE_CHECKING

import ocirt
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.metrics.text import Family

if TYPE_CHECKING:
    from ocirt_cri.node import Node

_PAGE = resource.getpagesize()
_TICK = os.sysconf("SC_CLK_TCK")


def families(node: Node) -> list[Family]:
    """From memory and from /proc/self: no shim is asked."""
    pods = Counter(_word(cri.PodSandboxState.Name(one.status.state), "SANDBOX_") for one in node.pods())
    containers = Counter(_word(cri.ContainerState.Name(one.status.state), "CONTAINER_") for one in node.containers())
    return [
        Family("ocirtd_build_info", "gauge", "Which ocirt this is.").add(1, {"version": ocirt.__version__}),
        Family("ocirtd_recovered", "gauge", "Whether what an earlier ocirtd has left was found again.").add(
            node.recovered.is_set()
        ),
        _states("ocirtd_pods", "Pods by state.", pods, ("ready", "notready")),
        _states("ocirtd_containers", "Containers by state.", containers, ("created", "running", "exited", "unknown")),
        Family("ocirtd_operations", "gauge", "Operations under way.").add(node.operations.count),
        Family("ocirtd_shims", "gauge", "Connections to shims.").add(sum(one.is_connected for one in node.shims.values())),
        Family("ocirtd_zygote_starts_total", "counter", "Zygotes that were started.").add(node.zygote.starts),
        *process(),
    ]


def process() -> list[Family]:
    """The daemon's own process, by the names that all programs use for this."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
        # proc_pid_stat(5), from the third field on.
        fields = file.read().rpartition(")")[2].split()
    times, threads, size, resident = int(fields[11]) + int(fields[12]), fields[17], fields[20], int(fields[21])
    return [
        Family("process_cpu_seconds_total", "counter", "Time of processors, in seconds.").add(times / _TICK),
        Family("process_threads", "gauge", "Threads.").add(int(threads)),
        Family("process_virtual_memory_bytes", "gauge", "Virtual memory.").add(int(size)),
        Family("process_resident_memory_bytes", "gauge", "Memory that is there.").add(resident * _PAGE),
        Family("process_open_fds", "gauge", "Open descriptors.").add(len(os.listdir("/proc/self/fd")) - 1),
        Family("process_max_fds", "gauge", "How many there may be.").add(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    ]


def _states(name: str, text: str, found: Counter[str], states: tuple[str, ...]) -> Family:
    family = Family(name, "gauge", text)
    for state in states:
        family.add(found[state], {"state": state})
    return family


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
