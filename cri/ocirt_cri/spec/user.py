"""Who the process is.

run_as_user, else run_as_username, else the image's USER; run_as_group only together with one of the first two. The image's own
/etc/passwd and /etc/group say the rest: group, and groups. The policy `Strict` leaves out those that /etc/group adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_cri.spec.refuse import invalid, shown
from ocirt_images.bundle import users
from ocirt_images.errors import Error as ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocirt_api.cri.api_pb2 import LinuxContainerSecurityContext
    from ocirt_cri.spec.inputs import Json, Lookups
    from ocirt_cri.spec.usernamespace import IdMap

FIELD = "config.linux.security_context"
_MOST = (1 << 32) - 2  # (uid_t) -1 stands for no one
_MANY = 65536  # NGROUPS_MAX
_STRICT = 1


@dataclass(frozen=True, slots=True)
class User:
    """Ids as the container sees them. groups: sorted, the primary one among them.

    It is among them because a file may deny to its group what it grants to others, and a set-gid program takes the primary group
    away: whoever is in it would get round that (CVE-2022-36109).
    """

    uid: int
    gid: int
    groups: tuple[int, ...]

    def document(self) -> Json:
        """As `process.user`."""
        return {"uid": self.uid, "gid": self.gid, "additionalGids": list(self.groups)}

    def with_groups(self, more: Iterable[int]) -> User:
        """The same user, in more groups."""
        return User(self.uid, self.gid, tuple(sorted({*self.groups, *more})))


def check(security: LinuxContainerSecurityContext) -> None:
    """What can be said without the image. Raises Error."""
    for name in ("run_as_user", "run_as_group"):
        if security.HasField(name):
            _in_range(getattr(security, name).value, f"{FIELD}.{name}")
    if len(security.supplemental_groups) > _MANY:
        raise invalid(f"{FIELD}.supplemental_groups", f"{len(security.supplemental_groups)} groups", f"{_MANY} at most")
    for number, gid in enumerate(security.supplemental_groups):
        _in_range(gid, f"{FIELD}.supplemental_groups[{number}]")
    if security.supplemental_groups_policy not in (0, _STRICT):
        what = f"{security.supplemental_groups_policy} is no policy"
        raise invalid(f"{FIELD}.supplemental_groups_policy", what, "Merge (0) or Strict (1)")
    name = security.run_as_username
    if ":" in name or "\n" in name:
        raise invalid(f"{FIELD}.run_as_username", f"{shown(name)} is no name of a user", "a group goes to run_as_group")
    if security.HasField("run_as_group") and not (security.HasField("run_as_user") or name):
        what = f"group {security.run_as_group.value} without a user"
        raise invalid(f"{FIELD}.run_as_group", what, "give run_as_user or run_as_username as well")


def find(security: LinuxContainerSecurityContext, image_user: str, image_name: str, lookups: Lookups, ids: IdMap | None) -> User:
    """The user of a request that was checked. `ids`: the mapping of the pod's user namespace.

    Raises Error, for a name that the image has not, for an id that the user namespace has not.
    """
    if security.HasField("run_as_user"):
        wanted, field = str(security.run_as_user.value), f"{FIELD}.run_as_user"
    elif security.run_as_username:
        wanted, field = security.run_as_username, f"{FIELD}.run_as_username"
    else:
        wanted, field = image_user, f"config.image: USER of {image_name}"
    try:
        account = users.find(wanted, lookups.read_image)
        more: frozenset[int] = frozenset()
        if security.supplemental_groups_policy != _STRICT:
            more = users.memberships(wanted.partition(":")[0] or "0", lookups.read_image)
    except ImageError as err:
        message = err.message if not err.subject else f"{err.message} in {err.subject}"
        raise invalid(field, message, err.hint, cause=err.cause) from None
    gid = security.run_as_group.value if security.HasField("run_as_group") else account.gid
    user = User(account.uid, gid, tuple(sorted({gid, *more, *security.supplemental_groups})))
    if ids is not None:
        _mapped(user, security, field, ids)
    return user


def _mapped(user: User, security: LinuxContainerSecurityContext, field: str, ids: IdMap) -> None:
    places = {gid: f"{FIELD}.supplemental_groups[{number}]" for number, gid in enumerate(security.supplemental_groups)}
    if user.uid >= ids.length:
        raise invalid(field, f"user {user.uid} is not in the pod's user namespace", f"0 to {ids.length - 1}")
    for gid in user.groups:
        if gid >= ids.length:
            place = places.get(gid) or (
                f"{FIELD}.run_as_group" if security.HasField("run_as_group") and gid == user.gid else field
            )
            raise invalid(place, f"group {gid} is not in the pod's user namespace", f"0 to {ids.length - 1}")


def _in_range(number: int, field: str) -> None:
    if not 0 <= number <= _MOST:
        raise invalid(field, f"{number} is out of range", f"0 to {_MOST}")
