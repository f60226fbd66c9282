"""What a fork does as long as nobody asks for anything: all that a request begins with and that changes nothing.

A fork shares the zygote's memory until it writes to it, and whatever Python touches it writes to (reference counts). So the first
time of everything is slow: of the thousand pages that a fork comes to copy, at 2 to 3 µs each, half are those of these calls.
"""

from __future__ import annotations

import posix

from ocirt import jsonlite
from ocirt.cli import spec
from ocirt.containers.create import Creation
from ocirt.errors import Error
from ocirt.plan import Request
from ocirt.zygote import wire


def rehearse() -> None:
    """Read, check and plan a container that nobody gets."""
    decoder = wire.Decoder()
    decoder.feed(wire.encode({"config": spec.rootless() if posix.geteuid() else spec.default()}))
    message = decoder.next()
    assert message is not None
    try:
        creation = Creation("/", Request("rehearsal", "/", "", waits=False, pipes=True), document=message["config"])
        creation.plan()
        jsonlite.dumps(creation.record)
    except (Error, OSError):
        pass  # who asks for a container hears of it
