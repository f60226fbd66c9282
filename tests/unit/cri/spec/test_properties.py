"""Whatever is asked for: it is refused by the name of a field, or what comes of it is what the runtime takes."""

from __future__ import annotations

import copy
import os
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from ocirt.errors import Error
from ocirt.jsonlite import loads
from ocirt.spec.capabilities import NAMES
from ocirt.spec.load import read_spec
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec.document import encode
from ocirt_cri.spec.inputs import ImageVolume
from ocirt_cri.spec.pod import pod_of
from tests.unit.cri.spec.requests import TARGET_ID, Lookups, image, made, pod, pod_config, with_host, with_settings

EXAMPLES = 300 * int(os.environ.get("OCIRT_TEST_FUZZ", "1"))

numbers = st.sampled_from([0, 1, 2, 100, 1000, 65535, 1 << 20, (1 << 31) - 1, -1, -2, (1 << 32) - 1, (1 << 62)])
small = st.sampled_from([0, 1, 1000, 1001, 65535, 100000])
words = st.one_of(st.sampled_from(["", "a", "sh", "A=1", "x y", "..", "/", "é"]), st.text(max_size=8))
paths = st.one_of(
    st.sampled_from(
        ["/", "/a", "/a/b", "/dev", "/dev/shm", "/etc/hosts", "/proc/x", "/sys", "/a/../b", "a", "", "//x//y/", "/proc"]
    ),
    words,
)
modes = st.sampled_from([cri.POD, cri.CONTAINER, cri.NODE, cri.TARGET])
names = st.sampled_from([*[name.removeprefix("CAP_") for name in NAMES], "ALL", "all", "CAP_CHOWN", "nothing"])


def some(values: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, max_size=most)


def message(kind: Any, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A message with any of these fields."""
    return st.fixed_dictionaries({}, optional=fields).map(
        lambda chosen: kind(**{k: v for k, v in chosen.items() if v is not None})
    )


id_values = st.one_of(small, numbers.filter(lambda number: abs(number) < 1 << 63)).map(
    lambda number: cri.Int64Value(value=number)
)
ranges = message(
    cri.IDMapping,
    host_id=st.sampled_from([0, 1, 100000]),
    container_id=st.sampled_from([0, 0, 0, 1]),
    length=st.sampled_from([0, 1, 65536]),
)
good_ids = st.just([cri.IDMapping(host_id=100000, container_id=0, length=65536)])
user_namespaces = message(
    cri.UserNamespace,
    mode=st.sampled_from([cri.POD, cri.POD, cri.NODE]),
    uids=st.one_of(good_ids, some(ranges, 2)),
    gids=st.one_of(good_ids, some(ranges, 2)),
)
namespace_options = message(
    cri.NamespaceOption,
    network=modes,
    pid=modes,
    ipc=modes,
    target_id=st.sampled_from(["", TARGET_ID, "x"]),
    userns_options=user_namespaces,
)
profiles = message(
    cri.SecurityProfile,
    profile_type=st.sampled_from([0, 1, 2]),
    localhost_ref=st.sampled_from(["", "/p.json", "k8s-strict", "p"]),
)
security = {
    "capabilities": message(
        cri.Capability, add_capabilities=some(names), drop_capabilities=some(names), add_ambient_capabilities=some(names, 2)
    ),
    "privileged": st.booleans(),
    "namespace_options": namespace_options,
    "selinux_options": message(cri.SELinuxOption, level=st.sampled_from(["", "s0:c1", "a b"]), type=st.sampled_from(["", "t"])),
    "run_as_user": id_values,
    "run_as_username": st.sampled_from(["", "alice", "nobody", "a:b"]),
    "run_as_group": id_values,
    "readonly_rootfs": st.booleans(),
    "supplemental_groups": some(small),
    "apparmor_profile": st.sampled_from(["", "unconfined", "runtime/default", "localhost/k8s-strict", "x"]),
    "seccomp_profile_path": st.sampled_from(["", "unconfined", "docker/default", "localhost//p.json", "x"]),
    "no_new_privs": st.booleans(),
    "masked_paths": some(paths),
    "readonly_paths": some(paths),
    "seccomp": profiles,
    "apparmor": profiles,
    "supplemental_groups_policy": st.sampled_from([0, 1]),
}
resources = message(
    cri.LinuxContainerResources,
    cpu_period=numbers,
    cpu_quota=numbers,
    cpu_shares=numbers,
    memory_limit_in_bytes=numbers,
    memory_swap_limit_in_bytes=numbers,
    oom_score_adj=st.sampled_from([0, -1000, 1000, 5000]),
    cpuset_cpus=st.sampled_from(["", "0", "0-3,5", "x"]),
    cpuset_mems=st.sampled_from(["", "0"]),
    hugepage_limits=some(message(cri.HugepageLimit, page_size=st.sampled_from(["2MB", "1GB", "x"]), limit=small), 2),
    unified=st.dictionaries(st.sampled_from(["memory.high", "memory.oom.group", "cgroup.kill", "x", "a/b"]), words, max_size=2),
)
mounts = message(
    cri.Mount,
    container_path=paths,
    host_path=st.sampled_from(["/srv/data", "/missing", "/shared", "", "x"]),
    readonly=st.booleans(),
    propagation=st.sampled_from([0, 1, 2]),
    recursive_read_only=st.booleans(),
    image=st.one_of(st.none(), st.just(cri.ImageSpec(image="vol:1"))),
    image_sub_path=st.sampled_from(["", "", "etc", "../x"]),
    mount_options=some(st.sampled_from(["noexec", "nodev", "nosuid", "suid", "rnoexec"]), 2),
    uidMappings=st.one_of(st.just([]), good_ids),
    gidMappings=st.one_of(st.just([]), good_ids),
    selinux_relabel=st.booleans(),
)


def _container(more: dict[str, Any], context: dict[str, Any], limits: cri.LinuxContainerResources) -> cri.ContainerConfig:
    linux = cri.LinuxContainerConfig(resources=limits, security_context=cri.LinuxContainerSecurityContext(**context))
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name="app"), image=cri.ImageSpec(image="busybox"), linux=linux, **more
    )


wild = st.builds(
    _container,
    st.fixed_dictionaries(
        {},
        optional={
            "command": some(words),
            "args": some(words),
            "working_dir": paths,
            "envs": some(message(cri.KeyValue, key=words, value=st.binary(max_size=6))),
            "mounts": some(mounts, 4),
            "devices": some(
                message(
                    cri.Device,
                    host_path=st.sampled_from(["/dev/fuse", "/dev/sda", "/x", ""]),
                    container_path=paths,
                    permissions=st.sampled_from(["", "r", "rwm", "x"]),
                ),
                2,
            ),
            "annotations": st.dictionaries(words, words, max_size=2),
            "log_path": paths,
            "tty": st.booleans(),
            "stop_signal": st.integers(0, 66),
        },
    ),
    st.fixed_dictionaries({}, optional=security),
    resources,
)


def _tame_security(chosen: dict[str, Any]) -> dict[str, Any]:
    """Without what contradicts itself."""
    if "run_as_user" not in chosen and "run_as_username" not in chosen:
        chosen.pop("run_as_group", None)
    return chosen


def _tame_mount(number: int, place: str, chosen: dict[str, Any]) -> cri.Mount:
    if chosen.pop("image", False):
        options = chosen.get("mount_options", [])
        return cri.Mount(container_path=f"{place}/{number}", readonly=True, image=cri.ImageSpec(image="v"), mount_options=options)
    if chosen.get("propagation"):
        chosen["host_path"] = "/shared"
    chosen["recursive_read_only"] = (
        chosen.get("recursive_read_only", False) and chosen["readonly"] and not chosen.get("propagation")
    )
    if chosen.pop("mapped", False):
        chosen["uidMappings"] = chosen["gidMappings"] = [cri.IDMapping(host_id=100000, container_id=0, length=65536)]
    return cri.Mount(container_path=place if number == 0 else f"{place}/{number}", **chosen)


tame_mounts = st.builds(
    lambda chosen: [_tame_mount(number, *one) for number, one in enumerate(chosen)],
    st.lists(
        st.tuples(
            st.sampled_from(["/mnt", "/dev", "/etc/hosts", "/sys", "/a/b/c", "/dev/shm", "/proc/stat", "/ä"]),
            st.fixed_dictionaries(
                {"readonly": st.booleans(), "host_path": st.sampled_from(["/srv/data", "/missing"])},
                optional={
                    "propagation": st.sampled_from([0, 1, 2]),
                    "recursive_read_only": st.booleans(),
                    "image": st.booleans(),
                    "mapped": st.booleans(),
                    "selinux_relabel": st.booleans(),
                    "mount_options": st.lists(
                        st.sampled_from(["noexec", "nodev", "rnosuid", "noatime"]), max_size=2, unique=True
                    ),
                },
            ),
        ),
        max_size=3,
    ),
)
right_names = st.sampled_from(["CHOWN", "CAP_NET_RAW", "sys_chroot", "ALL", "KILL"])
tame = st.builds(
    _container,
    st.fixed_dictionaries(
        {},
        optional={
            "command": st.just(["sh"]),
            "args": st.lists(
                st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=5), min_size=1, max_size=3
            ).map(lambda found: ["x", *found]),
            "working_dir": st.sampled_from(["/", "/a/../b"]),
            "envs": some(
                st.builds(
                    lambda key, value: cri.KeyValue(key=key, value=value.replace(b"\0", b"")),
                    st.sampled_from(["A", "PATH", "HOME", "é"]),
                    st.binary(max_size=6),
                )
            ),
            "mounts": tame_mounts,
            "devices": st.just([cri.Device(host_path="/dev/fuse", container_path="/dev/f")]),
            "annotations": st.dictionaries(st.text(min_size=1, max_size=5), words, max_size=2),
            "log_path": st.sampled_from(["", "a/0.log"]),
            "tty": st.booleans(),
            "stop_signal": st.integers(0, 65),
        },
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "capabilities": message(cri.Capability, add_capabilities=some(right_names), drop_capabilities=some(right_names)),
            "privileged": st.booleans(),
            "namespace_options": st.builds(
                lambda modes, mapped: cri.NamespaceOption(
                    userns_options=cri.UserNamespace(mode=cri.POD, uids=mapped, gids=mapped) if mapped else None, **modes
                ),
                st.sampled_from(
                    [
                        {},
                        {"pid": cri.CONTAINER},
                        {"network": cri.NODE},
                        {"network": cri.NODE, "ipc": cri.NODE, "pid": cri.NODE},
                        {"pid": cri.TARGET, "target_id": TARGET_ID},
                    ]
                ),
                st.sampled_from([[], [cri.IDMapping(host_id=100000, container_id=0, length=65536)]]),
            ),
            "run_as_user": small.map(lambda number: cri.Int64Value(value=number)),
            "run_as_group": small.map(lambda number: cri.Int64Value(value=number)),
            "readonly_rootfs": st.booleans(),
            "supplemental_groups": some(small),
            "no_new_privs": st.booleans(),
            "masked_paths": some(st.sampled_from(["/proc/kcore", "/bin/ls", "/a//b/"])),
            "readonly_paths": some(st.sampled_from(["/proc/sys", "/tmp"])),
            "seccomp": st.sampled_from(
                [cri.SecurityProfile(), cri.SecurityProfile(profile_type=cri.SecurityProfile.Localhost, localhost_ref="/p.json")]
            ),
            "supplemental_groups_policy": st.sampled_from([0, 1]),
        },
    ).map(_tame_security),
    message(
        cri.LinuxContainerResources,
        cpu_period=st.sampled_from([0, 1000, 100000]),
        cpu_quota=st.sampled_from([0, -1, 1000]),
        cpu_shares=st.sampled_from([0, 2, 262144]),
        memory_limit_in_bytes=st.sampled_from([0, -1, 1 << 24]),
        oom_score_adj=st.sampled_from([0, -1000, 1000]),
        cpuset_cpus=st.sampled_from(["", "0-3,5"]),
    ),
)


images = st.builds(
    image,
    entrypoint=st.sampled_from([None, ("e",), ("",)]),
    cmd=st.sampled_from([None, ("sh",), ("sh", "-c", "true")]),
    env=st.sampled_from([(), ("A=1", "PATH=/bin"), ("B",)]),
    user=st.sampled_from(["", "alice", "1000:5", "0"]),
    working_dir=st.sampled_from(["", "/srv", "x"]),
    volumes=st.sampled_from([(), ("/data", "/new"), ("x", "/", "/proc/x")]),
    stop_signal=st.sampled_from(["", "SIGQUIT", "x"]),
)
hosts = st.fixed_dictionaries(
    {},
    optional={
        "cgroup_version": st.sampled_from([1, 2]),
        "controllers": st.sampled_from([frozenset(), frozenset(("memory", "hugetlb", "pids"))]),
        "swap": st.booleans(),
        "recursive_read_only": st.booleans(),
        "apparmor": st.booleans(),
        "selinux": st.booleans(),
        "seccomp": st.booleans(),
        "machine": st.sampled_from(["x86_64", "aarch64", "sparc64"]),
        "capabilities": st.sampled_from([NAMES, NAMES[:10]]),
    },
)
configurations = st.fixed_dictionaries(
    {},
    optional={
        "cgroup_manager": st.sampled_from(["cgroupfs", "systemd"]),
        "seccomp_unset": st.sampled_from(["unconfined", "runtime-default"]),
        "pids_limit": small,
        "host_devices": st.booleans(),
        "make_host_paths": st.sampled_from([True, True, False]),
        "cgroup_writable": st.booleans(),
        "annotations": st.sampled_from([(), ("*",)]),
    },
)


@settings(max_examples=EXAMPLES)
@given(st.one_of(tame, tame, tame, wild), images, hosts, configurations, st.booleans())
def test_what_is_made_is_accepted(
    config: cri.ContainerConfig, of: Any, host: dict[str, Any], configuration: dict[str, Any], privileged: bool
) -> None:
    modes = cri.NamespaceOption()
    modes.CopyFrom(config.linux.security_context.namespace_options)
    modes.target_id = ""
    if modes.pid == cri.TARGET:
        modes.pid = cri.CONTAINER
    owner = pod(
        pod_config(
            linux=cri.LinuxPodSandboxConfig(
                security_context=cri.LinuxSandboxSecurityContext(namespace_options=modes, privileged=privileged)
            )
        )
    )
    lookups = Lookups(
        kinds={"/shared": "shared"}, missing=("/missing",), profiles={"/p.json": b'{"defaultAction": "SCMP_ACT_ALLOW"}'}
    )
    volumes = {number: ImageVolume(paths=("/l/1", "/l/2"), image_ref="sha256:1") for number in range(4)}
    before = copy.deepcopy(config)
    try:
        found = made(
            config,
            of=owner,
            image=of,
            host=with_host(**host),
            settings=with_settings(**configuration),
            lookups=lookups,
            volumes=volumes,
            accepted=False,
        )
    except Error as err:
        assert err.code in ("invalid", "unsupported")
        assert "config" in err.subject, str(err)
        assert err.message
        event("refused: " + err.subject.partition("[")[0])
        return
    finally:
        assert config == before
    event("accepted")
    warnings: list[Any] = []
    data = encode(found.document)
    read_spec("/nowhere", document=loads(data, any_bytes=True), warnings=warnings)
    assert warnings == []


pods = st.builds(
    lambda metadata, more, context, linux: cri.PodSandboxConfig(
        metadata=metadata,
        linux=cri.LinuxPodSandboxConfig(security_context=cri.LinuxSandboxSecurityContext(**context), **linux),
        **more,
    ),
    st.one_of(
        *[st.just(cri.PodSandboxMetadata(name="web", uid="u", namespace="default"))] * 6,
        message(cri.PodSandboxMetadata, name=words, uid=words, namespace=words),
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "hostname": st.one_of(st.sampled_from(["", "web", "web-1.example", "x" * 64]), words),
            "log_directory": st.one_of(st.sampled_from(["", "/var/log/pods/x"]), paths),
            "dns_config": message(cri.DNSConfig, servers=some(words), searches=some(words), options=some(words)),
            "port_mappings": some(
                message(
                    cri.PortMapping,
                    protocol=st.integers(0, 2),
                    container_port=st.sampled_from([0, 80, 70000, -1]),
                    host_port=st.sampled_from([0, 80, 70000, -1]),
                    host_ip=st.sampled_from(["", "127.0.0.1", "::1", "x"]),
                )
            ),
            "labels": st.dictionaries(words, words, max_size=2),
            "annotations": st.dictionaries(words, words, max_size=2),
        },
    ),
    st.fixed_dictionaries({}, optional={"namespace_options": namespace_options, "privileged": st.booleans()}),
    st.fixed_dictionaries(
        {},
        optional={
            "cgroup_parent": st.one_of(st.sampled_from(["", "/a/b", "a.slice", "/x/../y"]), words),
            "sysctls": st.dictionaries(
                st.one_of(st.sampled_from(["net.ipv4.ip_forward", "kernel.shmmax", "vm.swappiness", "net..x"]), words),
                words,
                max_size=2,
            ),
            "resources": resources,
            "overhead": resources,
        },
    ),
)


@settings(max_examples=EXAMPLES)
@given(pods, st.sampled_from(["", "", "", "ocirt", "x"]), hosts, configurations)
def test_pods(config: cri.PodSandboxConfig, handler: str, host: dict[str, Any], configuration: dict[str, Any]) -> None:
    """A pod is refused by the name of a field, or a container of it, that says nothing of its own, is accepted."""
    try:
        wants = pod_of(config, handler, with_host(**host), with_settings(**configuration))
    except Error as err:
        event("refused: " + err.subject.partition("[")[0])
        assert err.code in ("invalid", "unsupported")
        assert err.subject.startswith("config") or err.subject == "runtime_handler", str(err)
        assert err.message
        return
    event("accepted")
    modes = config.linux.security_context.namespace_options
    assert wants.network == (modes.network != cri.NODE)
    assert not any(path.split("/")[0] not in ("net", "kernel", "fs") for path in wants.sysctls)
    context = cri.LinuxContainerSecurityContext()
    if modes.HasField("userns_options"):
        context.namespace_options.userns_options.CopyFrom(modes.userns_options)
    plain = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name="app"),
        image=cri.ImageSpec(image="busybox"),
        linux=cri.LinuxContainerConfig(security_context=context),
    )
    owner = pod(config, user="/run/pod/user" if wants.ids else "")
    made(plain, of=owner, host=with_host(**host), settings=with_settings(**configuration))
