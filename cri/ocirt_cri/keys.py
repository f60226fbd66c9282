"""The keys of ocirtd's configuration, in one table. The file is read by it; `ocirtd config` and the manual are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ocirt_cri.spec import inputs

# What a value may be: (what a person calls it, the Python types that TOML gives for it).
TEXT, NUMBER, FLAG, TEXTS, TEXT_MAP, LIMITS, HANDLERS = (
    "text",
    "number",
    "true or false",
    "list of texts",
    "table of texts",
    "table of limits",
    "table of handlers",
)


@dataclass(frozen=True, slots=True)
class Key:
    """One key. live: SIGHUP changes it, else only a restart; words: the only values of a text; least: of a number."""

    name: str
    kind: str
    default: Any
    text: str
    live: bool = True
    words: tuple[str, ...] = ()
    least: int = 0

    @property
    def field(self) -> str:
        """The attribute of `Config`."""
        return self.name.replace(".", "_")


_SETTINGS = inputs.Settings()

KEYS = (
    Key("root", TEXT, "/var/lib/ocirt", "what survives a reboot: the table of pods and containers", live=False),
    Key("state", TEXT, "/run/ocirt", "what does not: sockets, shims, the files of pods", live=False),
    Key("listen", TEXT, "unix:///run/ocirt/ocirt.sock", "the socket of the CRI: unix://PATH", live=False),
    Key("image_root", TEXT, "", 'the store of images; "": that of the command `ocirt`, ROOT/images', live=False),
    Key("netns_dir", TEXT, "/run/netns", "where network namespaces of pods are bound", live=False),
    Key("log_level", TEXT, "info", "what is logged", words=("debug", "info", "warning", "error")),
    Key("log_format", TEXT, "text", "how: lines for a person, or JSON", words=("text", "json")),
    Key("handlers", HANDLERS, {}, "more runtime handlers, by name: what differs for their pods, and perhaps another runtime"),
    Key("trace", TEXT, "", 'a file that is told what each request spends its time with (Chrome\'s format); "": none', live=False),
    Key("cgroups.manager", TEXT, "cgroupfs", "who makes cgroups; the kubelet asks", live=False, words=("cgroupfs", "systemd")),
    Key("cgroups.parent", TEXT, "", 'of pods that name none; "": /ocirt, or system.slice'),
    Key("pods.sysctls", TEXT_MAP, dict(inputs.SYSCTLS), "of pods with a network of their own that do not say otherwise"),
    Key("pods.shm_size", NUMBER, _SETTINGS.shm_size, "bytes of a pod's /dev/shm", least=4096),
    Key("containers.capabilities", TEXTS, inputs.CAPABILITIES, "of a container that is not privileged"),
    Key(
        "containers.seccomp_unset",
        TEXT,
        _SETTINGS.seccomp_unset,
        "what a request without a word about seccomp means",
        words=("unconfined", "runtime-default"),
    ),
    Key("containers.apparmor_profile", TEXT, _SETTINGS.apparmor_profile, "the name of the profile that RuntimeDefault means"),
    Key("containers.pids_limit", NUMBER, _SETTINGS.pids_limit, "tasks of a container; 0: no limit"),
    Key("containers.rlimits", LIMITS, {}, "of its processes, by name: soft and hard, such as NOFILE = [1024, 4096]"),
    Key("containers.make_host_paths", FLAG, _SETTINGS.make_host_paths, "make a directory where a mount's source is not there"),
    Key("containers.host_devices", FLAG, _SETTINGS.host_devices, "whether a privileged container has the host's devices"),
    Key("containers.device_owner", FLAG, _SETTINGS.device_owner, "whether devices belong to the container's user"),
    Key("containers.cgroup_writable", FLAG, _SETTINGS.cgroup_writable, "whether a container may write to its own cgroup"),
    Key("containers.annotations", TEXTS, (), "patterns (`*` at the end) of those of a container that its config.json gets"),
    Key("containers.pod_annotations", TEXTS, (), "the same, of its pod"),
    Key("containers.log_line_limit", NUMBER, 16384, "bytes of a line of a log, above which it is split", least=1),
    Key("containers.log_size_limit", NUMBER, 0, "bytes of a log, above which it is renamed to NAME.1 and begun anew; 0: none"),
    Key("containers.log_rate_limit", NUMBER, 0, "bytes of a log in a second; lines above are dropped and counted; 0: none"),
    Key("containers.disk_limit", NUMBER, 0, "bytes that a container may write into its root; 0: as much as there is"),
    Key("containers.own_process", FLAG, False, "whether each has a shim's process, and not each pod: safer, and 1.5 MiB more"),
    Key("network.config_dir", TEXT, "/etc/cni/net.d", "the networks of pods (CNI); without any, one is built in"),
    Key("network.bin_dirs", TEXTS, ("/opt/cni/bin",), "where plugins of others are looked for"),
    Key("network.timeout", NUMBER, 180, "seconds after which making or ending a pod's network is given up", least=1),
    Key("streams.address", TEXT, "127.0.0.1", "where exec, attach and port-forward are served: loopback", live=False),
    Key("streams.port", NUMBER, 0, "the port there; 0: one that is free", live=False),
    Key("images.sync", FLAG, True, "wait for the disk before an image counts as there", live=False),
    Key("images.auth_file", TEXT, "", "credentials for pulls that bring none, as `ocirt login` keeps them", live=False),
    Key("images.policy", TEXT, "", 'the policy.json that images are checked against; "": the machine\'s', live=False),
    Key("images.stall", NUMBER, 300, "seconds without progress after which a registry's host is given up", live=False, least=1),
    Key("images.connections", NUMBER, 3, "connections to one registry at once", live=False, least=1),
    Key("images.pinned", TEXTS, (), "names of images that the kubelet is asked not to remove", live=False),
    Key("metrics.listen", TEXT, "", 'where /metrics and /healthz are: unix://PATH or 127.0.0.1:PORT; "": nowhere', live=False),
    Key("nri.enabled", FLAG, True, "whether plugins see and change pods and containers (NRI)", live=False),
    Key("nri.socket", TEXT, "/var/run/nri/nri.sock", "where plugins connect that others have started", live=False),
    Key("nri.plugins", TEXT, "/opt/nri/plugins", "a directory of plugins that ocirtd starts, INDEX-NAME", live=False),
    Key("nri.python", TEXTS, (), "plugins in Python that ocirtd starts: paths of INDEX-NAME.py", live=False),
    Key("nri.required", TEXTS, (), "names of plugins without which no container is made"),
    Key("nri.config_dir", TEXT, "/etc/nri/conf.d", "the configurations of those that ocirtd starts", live=False),
    Key("nri.registration_timeout", NUMBER, 5, "seconds that a plugin has to register, and to take in what there is", least=1),
    Key("nri.request_timeout", NUMBER, 2, "seconds that a plugin has to answer", least=1),
    Key("limits.recovery", NUMBER, 10, "seconds that a shim gets to answer a fresh ocirtd, before it is asked again", least=1),
    Key("limits.exec_output", NUMBER, 15 << 20, "bytes that ExecSync returns at most; the rest is dropped", least=1),
)  # fmt: skip
BY_NAME = {key.name: key for key in KEYS}
# What only a handler has: an OCI runtime of somebody else's.
RUNTIME, RUNTIME_ROOT, RUNTIME_OPTIONS = "runtime.path", "runtime.root", "runtime.options"
OF_RUNTIMES = (
    Key(RUNTIME, TEXT, "", "the program, with runc's command line; \"\": ocirt's own library, in the shim"),
    Key(RUNTIME_ROOT, TEXT, "", 'where it keeps its state (--root); "": STATE/runtimes/HANDLER'),
    Key(RUNTIME_OPTIONS, TEXTS, (), "more options that it gets before the verb"),
)
