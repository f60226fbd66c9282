"""`ocirt pods`: pods, and what their containers use."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_api.cri import api_pb2_grpc as services
from ocirt_cri.cli import output
from ocirt_cri.cli.client import PATIENCE, connected

_SHORT = 13  # characters of an ID
_INTERVAL = 2.0  # seconds between two looks
_CLEAR = "\x1b[H\x1b[J"
_STATES = {cri.CONTAINER_CREATED: "created", cri.CONTAINER_RUNNING: "running", cri.CONTAINER_EXITED: "exited"}


@dataclass
class Row:
    """One pod. created: nanoseconds since the epoch; cpu: cores; memory: bytes of the working set; rx, tx: bytes."""

    id: str
    namespace: str
    name: str
    attempt: int
    state: str
    created: int
    containers: dict[str, str] = field(default_factory=dict)
    restarts: int = 0
    cpu: float | None = None
    memory: int | None = None
    rx: int | None = None
    tx: int | None = None


def run(given: Any, args: list[str]) -> int:
    """Print them, once or for ever. 1 if a pod that was named is not there."""
    watched = bool(given.get("watch"))
    if watched and (given.get("json") or given.get("quiet")):
        raise Error("usage", "--watch shows a table; --json and --quiet print once")
    with connected(given) as calls:
        while True:
            rows = look(calls, every=bool(given.get("all")))
            chosen = [row for row in rows if not args or any(_is_meant(row, arg) for arg in args)]
            if watched:
                output.out(_CLEAR + show(chosen, time.time_ns(), whole=bool(given.get("no-trunc"))))
                time.sleep(_INTERVAL)
                continue
            if given.get("json"):
                output.say_json([asdict(row) for row in chosen])
            elif given.get("quiet"):
                output.out("".join(f"{row.id}\n" for row in chosen))
            else:
                output.out(show(chosen, time.time_ns(), whole=bool(given.get("no-trunc"))))
            missing = [arg for arg in args if not any(_is_meant(row, arg) for row in rows)]
            if missing:
                raise Error("not-found", "no such pod", subject=missing[0])
            return 0


def _is_meant(row: Row, word: str) -> bool:
    return row.id.startswith(word) or row.name == word or row.namespace == word or f"{row.namespace}/{row.name}" == word


def look(calls: services.RuntimeServiceStub, *, every: bool) -> list[Row]:
    """Ask for pods, containers and statistics, and put them together: oldest first. Raises grpc.RpcError."""
    wanted = cri.PodSandboxFilter()
    if not every:
        wanted.state.state = cri.SANDBOX_READY
    rows = {
        pod.id: Row(
            id=pod.id,
            namespace=pod.metadata.namespace,
            name=pod.metadata.name,
            attempt=pod.metadata.attempt,
            state="ready" if pod.state == cri.SANDBOX_READY else "stopped",
            created=pod.created_at,
        )
        for pod in calls.ListPodSandbox(cri.ListPodSandboxRequest(filter=wanted), timeout=PATIENCE).items
    }
    for container in calls.ListContainers(cri.ListContainersRequest(), timeout=PATIENCE).containers:
        row = rows.get(container.pod_sandbox_id)
        if row is not None:
            row.containers[container.metadata.name] = _STATES.get(container.state, "unknown")
            row.restarts += container.metadata.attempt
    for stats in calls.ListPodSandboxStats(cri.ListPodSandboxStatsRequest(), timeout=PATIENCE).stats:
        row = rows.get(stats.attributes.id)
        if row is not None:
            _add_use(row, stats.linux)
    return sorted(rows.values(), key=lambda row: row.created)


def _add_use(row: Row, used: cri.LinuxPodSandboxStats) -> None:
    if used.cpu.HasField("usage_nano_cores"):
        row.cpu = used.cpu.usage_nano_cores.value / 1e9
    if used.memory.HasField("working_set_bytes"):
        row.memory = used.memory.working_set_bytes.value
    if used.network.HasField("default_interface"):
        row.rx = used.network.default_interface.rx_bytes.value
        row.tx = used.network.default_interface.tx_bytes.value


def show(rows: list[Row], now: int, *, whole: bool = False) -> str:
    """The table; `now` in nanoseconds since the epoch."""
    lines: list[tuple[str, ...]] = [
        ("POD ID", "NAMESPACE", "NAME", "STATE", "AGE", "RUNNING", "RESTARTS", "CPU", "MEMORY", "NET RX/TX")
    ]
    for row in rows:
        running = sum(state == "running" for state in row.containers.values())
        lines.append(
            (
                row.id if whole else row.id[:_SHORT],
                output.plain(row.namespace),
                output.plain(row.name),
                row.state,
                output.age((now - row.created) / 1e9),
                f"{running}/{len(row.containers)}",
                str(row.restarts),
                "-" if row.cpu is None else f"{row.cpu:.3f}",
                "-" if row.memory is None else output.size(row.memory),
                "-" if row.rx is None or row.tx is None else f"{output.size(row.rx)}/{output.size(row.tx)}",
            )
        )
    return output.table(lines)
