"""Operations: joined, not cancelled with who asked, and refused by the field that differs."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.message import Message

from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.operations import Operations, difference


def test_a_second_caller_joins_and_a_cancelled_one_ends_nothing() -> None:
    async def run() -> None:
        operations, gate, begun = Operations(), asyncio.Event(), 0

        async def work() -> int:
            nonlocal begun
            begun += 1
            await gate.wait()
            return 7

        first = asyncio.create_task(operations.run(("pod", 1), work))
        await asyncio.sleep(0)
        second = asyncio.create_task(operations.run(("pod", 1), work))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        assert first.cancelled()
        gate.set()
        assert await second == 7
        assert begun == 1
        assert await operations.run(("pod", 1), work) == 7
        assert begun == 2

    asyncio.run(run())


def test_a_failure_is_for_all_and_is_not_kept() -> None:
    async def run() -> None:
        operations, gate = Operations(), asyncio.Event()

        async def fail() -> None:
            await gate.wait()
            raise Error("exhausted", "no more")

        tasks = [asyncio.create_task(operations.run(("pod", 1), fail)) for _ in range(3)]
        await asyncio.sleep(0)
        gate.set()
        for task in tasks:
            with pytest.raises(Error, match="no more"):
                await task

        async def succeed() -> str:
            return "fine"

        assert await operations.run(("pod", 1), succeed) == "fine"
        await operations.settle(1)

    asyncio.run(run())


def _pod(**more: object) -> cri.PodSandboxConfig:
    return cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name="a"), **more)  # type: ignore[arg-type]


def _ports(*numbers: int) -> cri.PodSandboxConfig:
    return _pod(port_mappings=[cri.PortMapping(host_port=number) for number in numbers])


@pytest.mark.parametrize(
    ("one", "other", "field"),
    [
        (_pod(), _pod(), None),
        (_pod(hostname="a"), _pod(hostname="b"), "hostname"),
        (_pod(labels={"x": "1"}), _pod(labels={"x": "2"}), 'labels["x"]'),
        (_pod(labels={"x": "1"}), _pod(labels={"x": "1", "y": "2"}), 'labels["y"]'),
        (_ports(1), _ports(2), "port_mappings[0].host_port"),
        (_pod(port_mappings=[cri.PortMapping()]), _pod(), "port_mappings"),
        (_pod(dns_config=cri.DNSConfig()), _pod(), "dns_config"),
        (_pod(dns_config=cri.DNSConfig(servers=["1"])), _pod(dns_config=cri.DNSConfig(servers=["2"])), "dns_config.servers"),
    ],
)  # fmt: skip
def test_the_field_that_differs(one: Message, other: Message, field: str | None) -> None:
    assert difference(one, other) == field


def test_another_configuration_is_refused_while_the_first_runs() -> None:
    async def run() -> None:
        operations, gate = Operations(), asyncio.Event()
        first = asyncio.create_task(operations.run(("pod", 1), gate.wait, _pod(hostname="a")))
        await asyncio.sleep(0)
        with pytest.raises(Error, match="whose hostname is another") as caught:
            await operations.run(("pod", 1), gate.wait, _pod(hostname="b"))
        assert (caught.value.code, caught.value.subject) == ("exists", "hostname")
        gate.set()
        await first

    asyncio.run(run())
