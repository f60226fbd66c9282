"""What statistics are asked of: the daemon's pods and containers, as far as it matters here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ocirt_api.cri import api_pb2 as cri


class Container(Protocol):
    """A container. cgroup: controller to directory, as its runtime's record has it; pid: of its init, 0 if there is none.

    image: a name of it; started_at: nanoseconds since the epoch; limits: those that are in force
    """

    @property
    def id(self) -> str:  # noqa: D102
        ...

    @property
    def pod_id(self) -> str:  # noqa: D102
        ...

    @property
    def metadata(self) -> cri.ContainerMetadata:  # noqa: D102
        ...

    @property
    def labels(self) -> Mapping[str, str]:  # noqa: D102
        ...

    @property
    def annotations(self) -> Mapping[str, str]:  # noqa: D102
        ...

    @property
    def is_running(self) -> bool:  # noqa: D102
        ...

    @property
    def pid(self) -> int:  # noqa: D102
        ...

    @property
    def cgroup(self) -> Mapping[str, str]:  # noqa: D102
        ...

    @property
    def image(self) -> str:  # noqa: D102
        ...

    @property
    def started_at(self) -> int:  # noqa: D102
        ...

    @property
    def limits(self) -> cri.LinuxContainerResources:  # noqa: D102
        ...


class Pod(Protocol):
    """A pod. cgroup: of all its containers together, and of nothing else: controller to directory, empty if it has none.

    netns: the path of its network namespace, "" if that is the host's; interface: the name of what has its address
    """

    @property
    def id(self) -> str:  # noqa: D102
        ...

    @property
    def metadata(self) -> cri.PodSandboxMetadata:  # noqa: D102
        ...

    @property
    def labels(self) -> Mapping[str, str]:  # noqa: D102
        ...

    @property
    def annotations(self) -> Mapping[str, str]:  # noqa: D102
        ...

    @property
    def is_ready(self) -> bool:  # noqa: D102
        ...

    @property
    def netns(self) -> str:  # noqa: D102
        ...

    @property
    def interface(self) -> str:  # noqa: D102
        ...

    @property
    def cgroup(self) -> Mapping[str, str]:  # noqa: D102
        ...


class Source(Protocol):
    """Where they come from: memory."""

    def containers(self) -> Iterable[Container]:
        """All of them."""

    def pods(self) -> Iterable[Pod]:
        """All of them."""
