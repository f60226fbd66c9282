"""References: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]` (distribution-spec, "Pulling manifests"; docker's grammar for the host).

docker's short names mean docker.io, for everybody who types one, so they are read so where a caller allows it (`short=True`).
A name that is short for nobody knows what is an error with the full one in its hint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ocirt_images.digest import Digest
from ocirt_images.errors import Error

DOCKER = "docker.io"
LIMIT = 255  # characters of host and path together
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_LABEL = r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """Which image is meant. With tag and digest, the digest decides, and the tag is what it was called.

    host: the registry, with its port if one was given; path: the repository; tag, digest: either may be missing
    """

    host: str
    path: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str, *, short: bool = False, tag: str = "latest") -> Reference:
        """What a person or a client typed. Without tag and digest it gets `tag`.

        short: read `busybox` and `library/busybox` as docker.io's. Raises Error("invalid") that says what is wrong with which
        part.
        """
        rest, at, digest = text.partition("@")
        found = Digest(digest, text[:LIMIT]) if at else None
        head, slash, tail = rest.partition("/")
        named = bool(slash) and ("." in head or ":" in head or head == "localhost" or head != head.lower())
        host, path = (head, tail) if named else (DOCKER, rest)
        path, colon, said = path.partition(":")
        cls._check(text, host, path, said if colon else None)
        if not named:
            full = (
                f"{DOCKER}/{path if slash else 'library/' + path}"
                + (f":{said}" if colon else "")
                + (f"@{found}" if found else "")
            )
            if not short:
                raise Error("invalid", "a short name: which registry is meant?", subject=text[:LIMIT], hint=f"perhaps {full}")
            path = path if slash else f"library/{path}"
        if host == "index.docker.io":
            host = DOCKER
        if host == DOCKER and "/" not in path:
            path = f"library/{path}"
        return cls(host, path, said or ("" if found else tag), found)

    @classmethod
    def full(cls, text: str) -> str:
        """The full name of what may be a short one; "" for what is no name."""
        try:
            return str(cls.parse(text, short=True))
        except Error:
            return ""

    @staticmethod
    def _check(text: str, host: str, path: str, tag: str | None) -> None:
        shown = text[:LIMIT]
        if not _HOST.fullmatch(host) or (
            host.rpartition(":")[2].isdigit() and ":" in host and int(host.rpartition(":")[2]) > 65535
        ):
            raise Error("invalid", f"{host[:LIMIT]!r} is no registry", subject=shown, hint="a host name, perhaps with :PORT")
        if not path:
            raise Error("invalid", "no repository in it", subject=shown, hint="HOST/PATH:TAG")
        if not _PATH.fullmatch(path):
            hint = "lower-case letters and digits, separated by one of . _ __ - /"
            if path != path.lower() and _PATH.fullmatch(path.lower()):
                hint = f"names of repositories are in lower case: {path.lower()}"
            raise Error("invalid", f"{path[:LIMIT]!r} is no repository", subject=shown, hint=hint)
        if len(host) + 1 + len(path) > LIMIT:
            raise Error("invalid", f"a name of {len(host) + 1 + len(path)} characters", subject=shown, hint=f"{LIMIT} at most")
        if tag is not None and not _TAG.fullmatch(tag):
            hint = "up to 128 letters, digits, . _ and -, and not one of . - first"
            raise Error("invalid", f"{tag[:LIMIT]!r} is no tag", subject=shown, hint=hint)

    @property
    def name(self) -> str:
        """Host and repository, without tag and digest."""
        return f"{self.host}/{self.path}"

    @property
    def familiar(self) -> str:
        """As people write it: docker.io's are short."""
        text = str(self)
        for prefix in (f"{DOCKER}/library/", f"{DOCKER}/"):
            if text.startswith(prefix):
                return text.removeprefix(prefix)
        return text

    @property
    def target(self) -> str:
        """What a registry is asked for: the digest, or the tag."""
        return str(self.digest or self.tag)

    def with_digest(self, digest: Digest) -> Reference:
        """The same image by this digest alone."""
        return Reference(self.host, self.path, "", digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")
