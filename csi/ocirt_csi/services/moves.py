"""What the verb `receive` asks of a driver that runs, which CSI has no call for."""

from __future__ import annotations

import json
import os

from google.protobuf.wrappers_pb2 import StringValue

from ocirt_csi import checks
from ocirt_csi.driver import Driver
from ocirt_csi.errors import Error
from ocirt_csi.model import SUBVOLUME
from ocirt_csi.snapshots import Snapshots

NAME = "ocirt.csi.Local"


class MoveService:
    """One call, whose request and answer are text."""

    def __init__(self, driver: Driver, snapshots: Snapshots) -> None:
        self._driver = driver
        self._snapshots = snapshots

    def TakeIn(self, request: StringValue) -> StringValue:
        """Have a subvolume that came into a pool as a snapshot: JSON of class, folder, name and head. The answer is its id."""
        given = json.loads(request.value)
        pool = self._driver.pool(given["class"])
        pool.check()
        if SUBVOLUME not in pool.back_ends or os.path.dirname(given["folder"]) != pool.arrivals:
            raise Error("invalid", "is not where what comes into the pool arrives", subject=given["folder"])
        head = given["head"]
        made = self._snapshots.take_in(
            checks.text(given["name"], "name"), pool, given["folder"], head["volume"], head["size"], head["created"]
        )
        return StringValue(value=made.id)
