"""Limits of a whole pod: what CRI says of all its containers together, and on top of it the overhead of the sandbox itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt_api.cri.api_pb2 import LinuxContainerResources
from ocirt_cri.spec import resources

if TYPE_CHECKING:
    from ocirt_cri.spec.inputs import Host, Json

_MOST_SHARES = 262144
_PERIOD = 100_000  # microseconds, where none is given


def of_pod(overhead: LinuxContainerResources, containers: LinuxContainerResources, host: Host, prefix: str) -> Json:
    """`linux.resources` for the pod's cgroup. prefix: of the fields' names. Raises Error for what is wrong with either."""
    for name, one in (("overhead", overhead), ("resources", containers)):
        resources.check(one, prefix + name)
        resources.resources_of(one, host, prefix + name)
    return resources.resources_of(together(overhead, containers), host, prefix + "resources")


def together(overhead: LinuxContainerResources, containers: LinuxContainerResources) -> LinuxContainerResources:
    """Both added. What containers are not limited in stays without a limit."""
    found = LinuxContainerResources()
    found.CopyFrom(containers)
    if containers.cpu_shares:
        found.cpu_shares = min(_MOST_SHARES, containers.cpu_shares + overhead.cpu_shares)
    if containers.cpu_quota > 0 and overhead.cpu_quota > 0:
        of_overhead, period = overhead.cpu_period or _PERIOD, containers.cpu_period or _PERIOD
        found.cpu_quota = containers.cpu_quota + overhead.cpu_quota * period // of_overhead
    if containers.memory_limit_in_bytes > 0 and overhead.memory_limit_in_bytes > 0:
        found.memory_limit_in_bytes += overhead.memory_limit_in_bytes
        if containers.memory_swap_limit_in_bytes > 0:
            found.memory_swap_limit_in_bytes += max(overhead.memory_limit_in_bytes, overhead.memory_swap_limit_in_bytes)
    return found
