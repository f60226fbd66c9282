"""ocirtd and what another version of it has left. (conformance/test_upgrade.py does so with the release before.)"""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import ocirt
from ocirt_api.cri import api_pb2 as cri
from tests.support.isolation import Isolation
from tests.support.ocirtd import Ocirtd, Wrapped
from tests.support.streams import RefusedError, SpdyClient
from tests.system.cri.conftest import daemon

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")


class Older(Wrapped):
    """Its shims speak the first version of the protocol."""

    module = "tests.support.oldershims"


@pytest.fixture
def older(pulled: tuple[Path, str], no_leaks: list[Path], isolation: Isolation) -> Iterator[Ocirtd]:
    yield from daemon(pulled, no_leaks, isolation, Older)


def test_shims_of_an_older_protocol_are_driven(older: Ocirtd) -> None:
    """Their containers go on, and all is done to them that they know of; what they do not is refused in a sentence."""
    pod = older.run_pod()
    made = older.run(pod, "sh", "-c", "trap 'echo ended; exit 5' TERM; echo begun; while :; do sleep 0.05; done")
    waiting = older.create(pod, older.container_config("sleep", "1000"))
    older.kill()
    node = Ocirtd(older.place, older.cgroup_parent)
    node.config, node.image = older.config, older.image
    node.start()
    try:
        assert (node.status(made).state, node.status(waiting).state) == (cri.CONTAINER_RUNNING, cri.CONTAINER_CREATED)
        assert node.exec(made, "sh", "-c", "echo here; exit 3").exit_code == 3
        node.start_container(waiting)
        url = node.runtime.Exec(cri.ExecRequest(container_id=made, cmd=["true"], stdout=True), timeout=10).url
        with pytest.raises(RefusedError) as refusal:
            SpdyClient(url, wanted="stdout")
        assert "StreamExec" in refusal.value.text
        fresh = node.run(pod, "sleep", "1000")
        url = node.runtime.Exec(cri.ExecRequest(container_id=fresh, cmd=["true"], stdout=True), timeout=10).url
        assert SpdyClient(url, wanted="stdout").finish()["status"] == "Success"
        node.stop_container(made, 10)
        assert (node.status(made).exit_code, [text for _, _, text in node.logged(made)]) == (5, ["begun", "ended"])
        node.remove_pod(pod)
        assert node.left() == []
    finally:
        node.stop()


def test_a_downgrade_is_refused(node: Ocirtd) -> None:
    """With status 1 and a sentence; containers go on, and the later one finds them."""
    pod = node.run_pod()
    made = node.run(pod, "sleep", "1000")
    node.stop()

    def set_version(number: int, release: str) -> None:
        with sqlite3.connect(node.place / "r/node.db") as db:
            db.execute(f"PRAGMA user_version = {number}")
            db.execute("INSERT OR REPLACE INTO meta VALUES ('release', ?)", (release,))
        db.close()

    with sqlite3.connect(node.place / "r/node.db") as db:
        (ours,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    set_version(ours + 1, "99.0.1")
    done = subprocess.run(node.command, capture_output=True, text=True, check=False, timeout=60, env=node.environment)
    assert done.returncode == 1
    assert f"node.db: was written by ocirtd 99.0.1, a later one: it has version {ours + 1} of its tables" in done.stderr
    assert f"and ocirtd {ocirt.__version__} knows {ours} (start the later one again" in done.stderr
    assert "Traceback" not in done.stderr
    set_version(ours, ocirt.__version__)
    node.start()
    assert node.exec(made, "true").exit_code == 0
    node.remove_pod(pod)
