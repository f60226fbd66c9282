"""What the process that brings images is told once. No imports: the daemon has it without the registry client."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """How images are pulled.

    root: of the store; sync: see `Store.open`; auth_file: credentials for who gives none ("": none); policy: a policy.json
    ("": the machine's); stall: seconds without progress after which a host is given up; connections: at once, to one registry
    """

    root: str
    sync: bool = True
    auth_file: str = ""
    policy: str = ""
    stall: float = 300
    connections: int = 3
