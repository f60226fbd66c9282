"""The CRI's AuthConfig as a credential of the registry client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt_images.registry.authfile import decode_auth, server_of
from ocirt_images.registry.credentials import Credential

if TYPE_CHECKING:
    from ocirt_api.cri import api_pb2 as cri
    from ocirt_images.reference import Reference

_SOURCE = "the pull's request"


def credential(auth: cri.AuthConfig, reference: Reference) -> Credential | None:
    """Whom a pull is made as; None: nobody that the client named.

    The first that is there decides: user and password, identity token, `auth` (base64 of both), registry token. What is for
    another server than the image's is left aside. Raises Error("invalid") that names the field.
    """
    if auth.server_address and server_of(auth.server_address) != server_of(reference.host):
        return None
    # Some registries file an identity token under a user without a password.
    if auth.username and (auth.password or not auth.identity_token):
        return Credential(username=auth.username, password=auth.password, source=_SOURCE)
    if auth.identity_token:
        return Credential(identity_token=auth.identity_token, source=_SOURCE)
    if auth.auth:
        name, password = decode_auth(auth.auth, "auth.auth")
        return Credential(username=name, password=password, source=_SOURCE)
    if auth.registry_token:
        return Credential(registry_token=auth.registry_token, source=_SOURCE)
    return None
