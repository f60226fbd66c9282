"""`ocirt features`: what this runtime can do (runtime-spec, features.md). Needs no root, and touches no state.

containerd looks for the user namespace, idmap and rro in it; CRI-O for the versions. What config.json may ask for and this
version refuses is not enabled here.
"""

from __future__ import annotations

from ocirt import __version__, jsonlite
from ocirt.cli import out
from ocirt.cli.version import SPEC_VERSION, libseccomp_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cli.options import Options


def run(options: Options, args: list[str]) -> int:
    """Print the features as indented JSON."""
    del options, args
    out(jsonlite.dumps(features(), 4) + "\n")
    return 0


def features() -> dict[str, Any]:
    """The features structure, in runc's order of members."""
    from ocirt.seccomp import support  # noqa: PLC0415
    from ocirt.spec import capabilities, mountoptions, scheduling  # noqa: PLC0415

    libseccomp = libseccomp_version()
    annotations = {"org.opencontainers.runc.checkpoint.enabled": "true", "org.ocirt.version": __version__}
    if libseccomp:
        annotations = {"io.github.seccomp.libseccomp.version": libseccomp} | annotations
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": mountoptions.known(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": list(capabilities.NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
            "seccomp": support.supported(),
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
            "memoryPolicy": {"modes": sorted(scheduling.MEMORY_MODES), "flags": sorted(scheduling.MEMORY_FLAGS)},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": annotations,
        "potentiallyUnsafeConfigAnnotations": ["bundle", "org.systemd.property.", "org.criu.config"],
    }
