"""A clock that jumps, by a day in either direction: only the daemon's own, as the machine's is everybody's."""

from __future__ import annotations

import time

import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.ocirtd import Wrapped

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

DAY = 86400


class Jumping(Wrapped):
    """A daemon whose clock can jump."""

    module = "tests.support.clockwork"

    def jump(self, seconds: int) -> None:
        (self.place / "jump").write_text(str(seconds))


@pytest.mark.parametrize("networked", [Jumping], indirect=True)
@pytest.mark.parametrize("seconds", [DAY, -DAY])
def test_a_clock_that_jumps(networked: Jumping, seconds: int) -> None:
    """No time-out is longer or shorter, times of one container are in order, and what was there is found by the next daemon."""
    node = networked
    pod = node.run_pod()
    before = node.run(pod, "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    assert node.exec(before, "true", timeout=20).exit_code == 0
    node.jump(seconds)
    assert node.exec(before, "true", timeout=20).exit_code == 0
    start = time.monotonic()
    node.stop_container(before, 1)
    assert time.monotonic() - start > 1
    assert node.status(before).exit_code == 137
    during = node.run(pod, "sleep", "1000")
    node.kill()
    node.start()
    assert node.pod_status(pod).state == cri.SANDBOX_READY
    assert node.status(during).state == cri.CONTAINER_RUNNING
    node.jump(0)
    node.stop_container(during)
    after = node.run(pod, "true")
    for box in (before, during, after):
        status = node.wait(box)
        assert 0 < status.created_at <= status.started_at <= status.finished_at
    assert {one.id for one in node.containers()} == {before, during, after}
    node.remove_pod(pod)
    assert node.left() == []
