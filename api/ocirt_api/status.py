"""One table from our error codes to the status codes of gRPC (https://grpc.io/docs/guides/status-codes/), which ttrpc has too.

Ours are words: `CODES` in `ocirt.errors` and `ocirt_images.errors`. A test sees to it that each of them stands here.
"""

from __future__ import annotations

OK = 0
CANCELLED = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
ALREADY_EXISTS = 6
PERMISSION_DENIED = 7
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
ABORTED = 10
OUT_OF_RANGE = 11
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
DATA_LOSS = 15
UNAUTHENTICATED = 16

# What a caller is told of an error of ours. A kubelet takes the code of an answer for more than its text in these alone:
# NOT_FOUND, DEADLINE_EXCEEDED, INVALID_ARGUMENT, RESOURCE_EXHAUSTED and UNIMPLEMENTED.
STATUS = {
    "cancelled": CANCELLED,
    "corrupt": DATA_LOSS,
    "exhausted": RESOURCE_EXHAUSTED,
    "exists": ALREADY_EXISTS,
    "in-use": FAILED_PRECONDITION,
    "internal": INTERNAL,
    "invalid": INVALID_ARGUMENT,
    "kernel": UNKNOWN,  # an operation that the system refused: it says nothing about the request
    "not-found": NOT_FOUND,
    "state": FAILED_PRECONDITION,
    "unauthorized": UNAUTHENTICATED,
    "unavailable": UNAVAILABLE,
    "unsupported": UNIMPLEMENTED,
    "untrusted": PERMISSION_DENIED,
    "usage": INVALID_ARGUMENT,
}
# And what a status means, if it comes from a shim, a plugin or a driver: of several words with one status, the likeliest.
CODE = {
    CANCELLED: "cancelled",
    UNKNOWN: "kernel",
    INVALID_ARGUMENT: "invalid",
    DEADLINE_EXCEEDED: "unavailable",
    NOT_FOUND: "not-found",
    ALREADY_EXISTS: "exists",
    PERMISSION_DENIED: "untrusted",
    RESOURCE_EXHAUSTED: "exhausted",
    FAILED_PRECONDITION: "state",
    ABORTED: "unavailable",
    OUT_OF_RANGE: "invalid",
    UNIMPLEMENTED: "unsupported",
    INTERNAL: "internal",
    UNAVAILABLE: "unavailable",
    DATA_LOSS: "corrupt",
    UNAUTHENTICATED: "unauthorized",
}


def of(code: str) -> int:
    """The status of an error of ours; UNKNOWN for a word that the table does not have."""
    return STATUS.get(code, UNKNOWN)


def code(status: int) -> str:
    """The word for a status that is not OK; "internal" for a number that gRPC does not have."""
    return CODE.get(status, "internal")
