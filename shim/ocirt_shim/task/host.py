"""What all processes of one shim have in common."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_shim.children import Children
    from ocirt_shim.loop import Loop
    from ocirt_shim.task.journal import Journal
    from ocirt_shim.task.publisher import Publisher


class Host:
    """The shim, as a container in it sees it. `namespace` is containerd's."""

    __slots__ = ("children", "journal", "loop", "namespace", "publisher")

    def __init__(self, loop: Loop, children: Children, publisher: Publisher, journal: Journal, namespace: str) -> None:
        self.loop = loop
        self.children = children
        self.publisher = publisher
        self.journal = journal
        self.namespace = namespace
