"""TLS as a host is configured: whom to trust, and who we are."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ocirt_images.errors import Error

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """ca: files of certificates to trust besides the system's; client: our certificate and key (None: in one file)."""

    ca: tuple[Path, ...] = ()
    client: tuple[tuple[Path, Path | None], ...] = ()
    verify: bool = True

    def anonymous(self) -> Tls:
        """The same without our certificates: for a host that we were only sent on to."""
        return replace(self, client=())

    def context(self) -> ssl.SSLContext:
        """Raises Error("invalid") that names the file which cannot be used."""
        context = ssl.create_default_context()
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        for path in self.ca:
            try:
                context.load_verify_locations(cafile=str(path))
            except (OSError, ssl.SSLError) as err:
                raise Error("invalid", "not a file of certificates (PEM)", subject=str(path), cause=_reason(err)) from None
        for certificate, key in self.client:
            try:
                # Without a password OpenSSL would ask for one, on the terminal.
                context.load_cert_chain(str(certificate), None if key is None else str(key), password="")
            except (OSError, ssl.SSLError) as err:
                what = f"not a certificate and key (PEM), with {key}" if key else "not a certificate and key (PEM)"
                raise Error("invalid", what, subject=str(certificate), cause=_reason(err)) from None
        return context


def _reason(err: OSError) -> str:
    if isinstance(err, ssl.SSLError):
        return err.reason or "it does not parse"
    return err.strerror or str(err)
