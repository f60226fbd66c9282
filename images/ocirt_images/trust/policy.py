"""policy.json: which images are accepted (containers-policy.json(5)).

The most specific scope that matches an image decides, alone; all that it requires has to be met.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ocirt_images.errors import Error
from ocirt_images.fields import Json, items, mapping
from ocirt_images.trust import strict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ocirt_images.descriptor import Descriptor
    from ocirt_images.reference import Reference
    from ocirt_images.registry.client import Registry
    from ocirt_images.trust.requirements import Requirement

VARIABLE = "OCIRT_POLICY"
SYSTEM = Path("/etc/containers/policy.json")
FAILED = "SignatureValidationFailed"  # how the CRI has such errors begin


@dataclass(frozen=True, slots=True)
class Policy:
    """What is required of images. default: of those for which no scope is named (without a file nothing); scopes: of docker's
    transport, registries.

    source: the file, "" for none
    """

    default: tuple[Requirement, ...] = ()
    scopes: dict[str, tuple[Requirement, ...]] = field(default_factory=dict)
    source: str = ""

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, system: Path = SYSTEM) -> Policy:
        """From $OCIRT_POLICY, or the user's file, or the system's; without any, all is accepted.

        Raises Error("invalid") that names the file and the field, OSError.
        """
        environ = os.environ if environ is None else environ
        chosen = environ.get(VARIABLE)
        if chosen:
            return cls.read(Path(chosen))
        home = environ.get("HOME", "")
        places = [*([Path(home) / ".config/containers/policy.json"] if home.startswith("/") else []), system]
        for place in places:
            try:
                return cls.read(place)
            except (FileNotFoundError, NotADirectoryError):
                continue
        return cls()

    @classmethod
    def read(cls, path: Path) -> Policy:
        """From a file. Raises as `load` does."""
        return cls.parse(path.read_bytes(), str(path))

    @classmethod
    def parse(cls, data: bytes, source: str) -> Policy:
        """From a file's bytes. Raises Error("invalid")."""
        subject = f"{source}: "
        value = strict.parse(data, source)
        strict.check(value, ("default", "transports"), source)
        if "default" not in value:
            raise Error("invalid", "missing", subject=f"{subject}/default", hint='[{"type": "reject"}], for instance')
        scopes: dict[str, tuple[Requirement, ...]] = {}
        transports = mapping(value.get("transports", {}), f"{subject}/transports")
        for name in transports:
            found = mapping(transports[name], f"{subject}/transports/{name}")
            parsed = {scope: _all(found, scope, f"{subject}/transports/{name}") for scope in found}
            if name == "docker":
                scopes = parsed
        return cls(_all(value, "default", subject), scopes, source)

    def check(self, reference: Reference, descriptor: Descriptor, registry: Registry) -> None:
        """See that an image may be used. descriptor: of what `reference` stands for.

        Raises Error("untrusted") whose text begins with `SignatureValidationFailed`, and, if signatures cannot be fetched, what
        the registry client raises.
        """
        scope, required = self.rule(reference)
        for one in required:
            reason = one.check(reference, descriptor.digest, registry)
            if reason:
                named = f" for {scope}" if scope else " by default"
                hint = f"{self.source} wants it so{named}"
                raise Error("untrusted", f"{FAILED}: {reference}: {reason}", hint=hint)

    def rule(self, reference: Reference) -> tuple[str, tuple[Requirement, ...]]:
        """What is required of an image, and by which scope ("" for a default)."""
        for scope in _scopes(reference):
            if scope in self.scopes:
                return scope, self.scopes[scope]
        return "", self.default


def _scopes(reference: Reference) -> Iterator[str]:
    """The scopes that match, from the narrowest: image, repository, what is above it, host, domains, the transport's own."""
    if reference.digest is not None:
        yield f"{reference.name}@{reference.digest}"
    if reference.tag:
        yield f"{reference.name}:{reference.tag}"
    name = reference.name
    while True:
        yield name
        if "/" not in name:
            break
        name = name.rpartition("/")[0]
    domain = name.partition(":")[0]
    while "." in domain:
        domain = domain.partition(".")[2]
        yield f"*.{domain}"
    yield ""


def _all(value: Json, name: str, pointer: str) -> tuple[Requirement, ...]:
    """The requirements in a field. None at all would accept everything without saying so."""
    found = items(value, name, pointer)
    if not found:
        raise Error("invalid", "no requirement", subject=f"{pointer}/{name}", hint='[{"type": "insecureAcceptAnything"}]')
    from ocirt_images.trust import requirements  # noqa: PLC0415  (few have a policy, and it loads all that reads signatures)

    return tuple(requirements.parse(one, f"{pointer}/{name}/{number}") for number, one in enumerate(found))
