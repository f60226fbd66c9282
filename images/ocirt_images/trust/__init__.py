"""Whom images are taken from: containers-policy.json(5), and the signatures that it asks for.

`policy.Policy` is what callers use. A file says which requirements there are for an image (`policy`), what a signature has to say
(`identity`), by whose key it has to be (`keys`); `sigstore` fetches and verifies signatures as cosign makes them.
"""
