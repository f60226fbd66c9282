"""Users, capabilities, profiles, labels, masks: what a container may do, and as whom."""

from __future__ import annotations

import json
import platform
from typing import Any

import pytest

from ocirt.spec.capabilities import NAMES
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec.inputs import CAPABILITIES
from ocirt_cri.spec.user import User
from tests.seccomp_profiles import docker_default
from tests.unit.cri.spec.requests import (
    Lookups,
    image,
    made,
    pod,
    refused,
    secure,
    secure_pod,
    userns,
    with_host,
    with_settings,
)

SECURITY = "config.linux.security_context"
Localhost, Unconfined, RuntimeDefault = (
    cri.SecurityProfile.Localhost,
    cri.SecurityProfile.Unconfined,
    cri.SecurityProfile.RuntimeDefault,
)


def number(value: int) -> cri.Int64Value:
    return cri.Int64Value(value=value)


def profile(kind: cri.SecurityProfile.ProfileType.ValueType, reference: str = "") -> cri.SecurityProfile:
    return cri.SecurityProfile(profile_type=kind, localhost_ref=reference)


# -- users ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of_image", "asked", "wanted"),
    [
        ("", {}, User(0, 0, (0,))),
        ("alice", {}, User(1000, 1001, (29, 1001, 50000))),
        ("1000", {}, User(1000, 1001, (29, 1001, 50000))),
        ("alice:bob", None, None),
        ("alice:audio", {}, User(1000, 29, (29, 50000))),
        ("4000:5000", {}, User(4000, 5000, (5000,))),
        ("4000", {}, User(4000, 0, (0,))),
        ("alice", {"run_as_user": number(0)}, User(0, 0, (0,))),
        ("alice", {"run_as_user": number(1002)}, User(1002, 1002, (1002, 50000))),
        ("", {"run_as_user": number(1000)}, User(1000, 1001, (29, 1001, 50000))),
        ("", {"run_as_user": number(1000), "run_as_group": number(7)}, User(1000, 7, (7, 29, 50000))),
        ("", {"run_as_user": number(1001), "run_as_group": number(1002)}, User(1001, 1002, (1002,))),
        ("bob", {"run_as_username": "alice"}, User(1000, 1001, (29, 1001, 50000))),
        ("", {"run_as_username": "alice", "run_as_group": number(0)}, User(1000, 0, (0, 29, 50000))),
        ("", {"run_as_user": number(1002), "run_as_username": "alice"}, User(1002, 1002, (1002, 50000))),
        ("", {"supplemental_groups": [1234, 5678]}, User(0, 0, (0, 1234, 5678))),
        ("", {"run_as_user": number(1000), "supplemental_groups": [30, 29]}, User(1000, 1001, (29, 30, 1001, 50000))),
        (
            "",
            {"run_as_user": number(1000), "supplemental_groups": [1234], "supplemental_groups_policy": cri.Strict},
            User(1000, 1001, (1001, 1234)),
        ),
    ],
)
def test_user(of_image: str, asked: dict[str, Any] | None, wanted: User | None) -> None:
    if asked is None:
        refused(
            lambda: made(image=image(user=of_image)), "config.image: USER of docker.io/library/busybox:latest", "no group 'bob'"
        )
        return
    assert wanted is not None
    found = made(secure(**asked), image=image(user=of_image))
    assert found.user == wanted
    assert found.document["process"]["user"] == {"uid": wanted.uid, "gid": wanted.gid, "additionalGids": list(wanted.groups)}


def test_user_of_an_image_without_files() -> None:
    nothing = Lookups(files={})
    assert made(secure(run_as_user=number(5)), lookups=nothing).user == User(5, 0, (0,))
    refused(lambda: made(secure(run_as_username="alice"), lookups=nothing), f"{SECURITY}.run_as_username", "no user 'alice'")


@pytest.mark.parametrize(
    ("asked", "field", "word"),
    [
        ({"run_as_group": number(5)}, "run_as_group", "without a user"),
        ({"run_as_group": number(0)}, "run_as_group", "without a user"),
        ({"run_as_user": number(-1)}, "run_as_user", "out of range"),
        ({"run_as_user": number((1 << 32) - 1)}, "run_as_user", "out of range"),
        ({"run_as_user": number(0), "run_as_group": number(-1)}, "run_as_group", "out of range"),
        ({"run_as_username": "nobody-here"}, "run_as_username", "no user"),
        ({"run_as_username": "alice:audio"}, "run_as_username", "no name"),
        ({"supplemental_groups": [1, -5]}, "supplemental_groups[1]", "out of range"),
        ({"supplemental_groups": [1] * 70000}, "supplemental_groups", "70000 groups"),
        ({"supplemental_groups_policy": 7}, "supplemental_groups_policy", "7 is no policy"),
    ],
)
def test_bad_user(asked: dict[str, Any], field: str, word: str) -> None:
    refused(lambda: made(secure(**asked)), f"{SECURITY}.{field}", word)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"run_as_user": number(1000)}, f"{SECURITY}.run_as_user"),
        ({"run_as_user": number(1), "run_as_group": number(1000)}, f"{SECURITY}.run_as_group"),
        ({"supplemental_groups": [3, 100]}, f"{SECURITY}.supplemental_groups[1]"),
    ],
)
def test_user_outside_the_user_namespace(asked: dict[str, Any], field: str) -> None:
    modes = userns(length=100)
    refused(lambda: made(secure(namespace_options=modes, **asked), of=secure_pod(namespace_options=modes)), field, "0 to 99")


# -- capabilities --------------------------------------------------------------------------------------------------------------


def capabilities(**changes: Any) -> cri.ContainerConfig:
    return secure(capabilities=cri.Capability(**changes))


def without(*names: str) -> set[str]:
    return set(CAPABILITIES) - set(names)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, set(CAPABILITIES)),
        ({"add_capabilities": ["NET_ADMIN"]}, {*CAPABILITIES, "CAP_NET_ADMIN"}),
        ({"add_capabilities": ["cap_net_admin", "Sys_Time"]}, {*CAPABILITIES, "CAP_NET_ADMIN", "CAP_SYS_TIME"}),
        ({"drop_capabilities": ["NET_RAW", "CAP_MKNOD"]}, without("CAP_NET_RAW", "CAP_MKNOD")),
        ({"add_capabilities": ["ALL"]}, set(NAMES)),
        ({"drop_capabilities": ["ALL"]}, set()),
        ({"drop_capabilities": ["all"], "add_capabilities": ["CHOWN"]}, {"CAP_CHOWN"}),
        ({"drop_capabilities": ["ALL"], "add_capabilities": ["ALL"]}, set(NAMES)),
        ({"add_capabilities": ["ALL"], "drop_capabilities": ["SYS_ADMIN"]}, set(NAMES) - {"CAP_SYS_ADMIN"}),
        ({"add_capabilities": ["CHOWN"], "drop_capabilities": ["CHOWN"]}, without("CAP_CHOWN")),
    ],
)
def test_capabilities(asked: dict[str, Any], wanted: set[str]) -> None:
    found = made(capabilities(**asked)).document["process"]["capabilities"]
    assert set(found["bounding"]) == wanted
    assert found == {"bounding": found["bounding"], "effective": found["bounding"], "permitted": found["bounding"]}
    assert found["bounding"] == sorted(found["bounding"], key=NAMES.index)


def test_the_fourteen() -> None:
    assert len(CAPABILITIES) == 14
    assert "CAP_SYS_ADMIN" not in CAPABILITIES


def test_ambient_capabilities() -> None:
    """They are in all sets, so that they outlive execve(2) of a user who is not root."""
    given = capabilities(drop_capabilities=["ALL"], add_ambient_capabilities=["NET_BIND_SERVICE", "net_admin"])
    wanted = ["CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN"]
    found = made(given).document["process"]["capabilities"]
    assert found == dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), wanted)


@pytest.mark.parametrize(
    ("asked", "field", "words"),
    [
        ({"add_capabilities": ["NET_ADMIM"]}, "add_capabilities[0]", ("did you mean NET_ADMIN?",)),
        ({"add_capabilities": ["CHOWN", ""]}, "add_capabilities[1]", ("is no capability",)),
        ({"drop_capabilities": ["everything"]}, "drop_capabilities[0]", ("is no capability",)),
        (
            {"add_ambient_capabilities": ["CHOWN"], "drop_capabilities": ["CHOWN"]},
            "add_ambient_capabilities[0]",
            ("drop_capabilities",),
        ),
    ],
)
def test_bad_capabilities(asked: dict[str, Any], field: str, words: tuple[str, ...]) -> None:
    refused(lambda: made(capabilities(**asked)), f"{SECURITY}.capabilities.{field}", *words)


def test_capabilities_that_the_host_has_not() -> None:
    host = with_host(capabilities=("CAP_CHOWN", "CAP_KILL"))
    assert made(host=host).document["process"]["capabilities"]["bounding"] == ["CAP_CHOWN", "CAP_KILL"]
    everything = made(capabilities(add_capabilities=["ALL"]), host=host).document["process"]["capabilities"]
    assert everything["bounding"] == ["CAP_CHOWN", "CAP_KILL"]
    field = f"{SECURITY}.capabilities.add_capabilities[0]"
    refused(lambda: made(capabilities(add_capabilities=["BPF"]), host=host), field, "BPF", code="unsupported")


def test_a_configured_default() -> None:
    found = made(settings=with_settings(capabilities=("CAP_KILL",))).document["process"]["capabilities"]
    assert found["bounding"] == ["CAP_KILL"]


# -- seccomp -------------------------------------------------------------------------------------------------------------------

FILE = "/var/lib/kubelet/seccomp/p.json"
BLOCK_CHMOD = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}]}


def filters(given: cri.ContainerConfig, content: Any = None, **more: Any) -> Any:
    lookups = Lookups(profiles={} if content is None else {FILE: json.dumps(content).encode()})
    return made(given, lookups=lookups, **more).document["linux"].get("seccomp")


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"seccomp": profile(Unconfined)},
        {"seccomp_profile_path": "unconfined"},
        {"seccomp_profile_path": ""},
        {"seccomp": profile(Unconfined), "seccomp_profile_path": "runtime/default"},
    ],
)
def test_no_filter(asked: dict[str, Any]) -> None:
    assert filters(secure(**asked)) is None


@pytest.mark.parametrize(
    "asked",
    [
        {"seccomp": profile(RuntimeDefault)},
        {"seccomp_profile_path": "runtime/default"},
        {"seccomp_profile_path": "docker/default"},
        {"seccomp": profile(RuntimeDefault), "seccomp_profile_path": "unconfined"},
    ],
)
def test_default_filter(asked: dict[str, Any]) -> None:
    found = filters(secure(**asked))
    assert found["defaultAction"] == "SCMP_ACT_ERRNO"
    assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]


def test_default_filter_where_nothing_is_said() -> None:
    assert filters(secure(), settings=with_settings(seccomp_unset="runtime-default"))["defaultErrnoRet"] == 1


def allowed(found: dict[str, Any]) -> set[str]:
    return {
        name
        for rule in found["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args")
        for name in rule["names"]
    }


def test_default_filter_by_capability() -> None:
    """Who may administer may make the calls for it; nobody else."""
    plain = filters(secure(seccomp=profile(RuntimeDefault)))
    admin = filters(secure(seccomp=profile(RuntimeDefault), capabilities=cri.Capability(add_capabilities=["SYS_ADMIN"])))
    none = filters(secure(seccomp=profile(RuntimeDefault), capabilities=cri.Capability(drop_capabilities=["ALL"])))
    assert not {"mount", "sethostname", "setns", "clone", "clone3", "bpf", "reboot", "keyctl", "kexec_load"} & allowed(plain)
    assert {"read", "openat2", "chroot", "arch_prctl"} <= allowed(plain)
    assert {"mount", "sethostname", "setns", "clone", "clone3", "bpf"} <= allowed(admin)
    assert "reboot" not in allowed(admin)
    assert "chroot" not in allowed(none)
    assert {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38} in plain["syscalls"]
    assert not [rule for rule in admin["syscalls"] if rule.get("errnoRet") == 38]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="compares with what docker sends on this machine")
def test_default_filter_beside_dockers() -> None:
    """For the fourteen capabilities it is the filter that docker sends: no call more, none less."""

    def rules(found: dict[str, Any]) -> set[str]:
        return {
            json.dumps([name, rule["action"], rule.get("errnoRet"), rule.get("args")])
            for rule in found["syscalls"]
            for name in rule["names"]
        }

    ours, dockers = filters(secure(seccomp=profile(RuntimeDefault))), docker_default()
    assert rules(ours) == rules(dockers)
    assert {name: ours[name] for name in dockers if name != "syscalls"} == {
        name: value for name, value in dockers.items() if name != "syscalls"
    }


@pytest.mark.parametrize(
    ("machine", "first", "own"),
    [
        ("x86_64", "SCMP_ARCH_X86_64", "arch_prctl"),
        ("aarch64", "SCMP_ARCH_AARCH64", "sync_file_range2"),
        ("s390x", "SCMP_ARCH_S390X", "s390_runtime_instr"),
        ("riscv64", "SCMP_ARCH_RISCV64", "riscv_flush_icache"),
        ("ppc64le", "SCMP_ARCH_PPC64LE", "swapcontext"),
    ],
)
def test_default_filter_by_machine(machine: str, first: str, own: str) -> None:
    found = filters(secure(seccomp=profile(RuntimeDefault)), host=with_host(machine=machine))
    assert found["architectures"][0] == first
    assert own in allowed(found)
    (clone,) = [rule for rule in found["syscalls"] if rule["names"] == ["clone"]]
    assert clone["args"][0]["index"] == (1 if machine == "s390x" else 0)


@pytest.mark.parametrize(
    "asked",
    [
        {"seccomp": profile(Localhost, FILE)},
        {"seccomp_profile_path": "localhost/" + FILE},
        {"seccomp": profile(Localhost, FILE), "seccomp_profile_path": "unconfined"},
    ],
)
def test_filter_of_the_node(asked: dict[str, Any]) -> None:
    assert filters(secure(**asked), BLOCK_CHMOD) == BLOCK_CHMOD


def test_filter_of_dockers_form() -> None:
    content = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrno": "EPERM",
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            {"architecture": "SCMP_ARCH_S390X", "subArchitectures": None},
        ],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": None, "comment": "", "includes": {}, "excludes": {}},
            {"name": "write", "action": "SCMP_ACT_ALLOW"},
            {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}},
            {"names": ["chown"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_CHOWN", "CAP_KILL"]}},
            {"names": ["open"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_CHOWN"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["futex"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.1"}},
            {"names": ["alarm"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
            {"names": ["pause"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64", "x32"]}},
            {"names": ["sync"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_NEVER_HEARD_OF"]}},
            {
                "names": ["mkdir"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 38,
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
            },
        ],
    }
    found = filters(secure(seccomp=profile(Localhost, FILE)), content)
    assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert [rule["names"] for rule in found["syscalls"]] == [["read"], ["write"], ["chown"], ["ptrace"], ["mkdir"]]
    assert found["syscalls"][0] == {"names": ["read"], "action": "SCMP_ACT_ALLOW"}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ([], "not a profile"),
        ({}, "defaultAction"),
        ({"defaultAction": "ALLOW"}, "defaultAction"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": []}]}, "not a profile"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_KILL"}]}, "/syscalls/0/names"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"], "action": "SCMP_ACT_NOTIFY"}]}, "listenerPath"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": 5}, "not a profile"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{}]}, "not a profile"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["x86"]}, "/architectures/0"),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["x"], "action": "SCMP_ACT_KILL", "includes": {"minKernel": "x"}}],
            },
            "not a profile",
        ),
    ],
)
def test_bad_filter(content: Any, word: str) -> None:
    refused(lambda: filters(secure(seccomp=profile(Localhost, FILE)), content), f"{SECURITY}.seccomp.localhost_ref", word)


@pytest.mark.parametrize(
    ("asked", "field", "word"),
    [
        ({"seccomp": profile(Localhost, "p.json")}, "seccomp.localhost_ref", "absolute"),
        ({"seccomp": profile(Localhost)}, "seccomp.localhost_ref", "absolute"),
        ({"seccomp": profile(Localhost, "/nowhere.json")}, "seccomp.localhost_ref", "cannot be read"),
        ({"seccomp": cri.SecurityProfile(profile_type=9)}, "seccomp.profile_type", "9 is no type"),  # type: ignore[arg-type]
        ({"seccomp_profile_path": FILE}, "seccomp_profile_path", "no profile"),
        ({"seccomp_profile_path": "localhost/p.json"}, "seccomp_profile_path", "absolute"),
    ],
)
def test_bad_filter_asked_for(asked: dict[str, Any], field: str, word: str) -> None:
    refused(lambda: made(secure(**asked)), f"{SECURITY}.{field}", word)


def test_filter_that_is_no_json_or_too_large() -> None:
    for data, word in ((b"{", "not JSON"), (b"\xff", "not JSON"), (b" " * (5 << 20), "bytes")):
        lookups = Lookups(profiles={FILE: data})
        field = f"{SECURITY}.seccomp.localhost_ref"
        refused(lambda lookups=lookups: made(secure(seccomp=profile(Localhost, FILE)), lookups=lookups), field, word)  # type: ignore[misc]


def test_kernel_without_filters() -> None:
    host = with_host(seccomp=False)
    assert filters(secure(), host=host) is None
    assert filters(secure(), host=host, settings=with_settings(seccomp_unset="runtime-default")) is None
    refused(lambda: made(secure(seccomp=profile(RuntimeDefault)), host=host), f"{SECURITY}.seccomp", code="unsupported")


# -- AppArmor and SELinux ------------------------------------------------------------------------------------------------------

ARMOUR = with_host(apparmor=True)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, "ocirt-default"),
        ({"apparmor": profile(RuntimeDefault)}, "ocirt-default"),
        ({"apparmor_profile": "runtime/default"}, "ocirt-default"),
        ({"apparmor_profile": "unconfined"}, None),
        ({"apparmor": profile(Unconfined)}, None),
        ({"apparmor_profile": "localhost/k8s-strict"}, "k8s-strict"),
        ({"apparmor": profile(Localhost, "k8s-strict")}, "k8s-strict"),
        ({"apparmor": profile(Localhost, "localhost/k8s-strict")}, "k8s-strict"),
        ({"apparmor": profile(Localhost, "k8s-strict"), "apparmor_profile": "localhost/gone"}, "k8s-strict"),
        ({"apparmor": profile(Unconfined), "apparmor_profile": "localhost/k8s-strict"}, None),
        ({"privileged": True}, None),
        ({"privileged": True, "apparmor": profile(RuntimeDefault)}, None),
        ({"privileged": True, "apparmor": profile(Localhost, "k8s-strict")}, "k8s-strict"),
    ],
)
def test_apparmor(asked: dict[str, Any], wanted: str | None) -> None:
    found = made(secure(**asked), of=secure_pod(privileged=True), host=ARMOUR)
    assert found.document["process"].get("apparmorProfile") == wanted


@pytest.mark.parametrize(
    ("asked", "field", "word"),
    [
        ({"apparmor": profile(Localhost, "gone")}, "apparmor.localhost_ref", "no profile 'gone' is loaded"),
        ({"apparmor": profile(Localhost)}, "apparmor.localhost_ref", "no name"),
        ({"apparmor_profile": "localhost/gone"}, "apparmor_profile", "no profile 'gone' is loaded"),
        ({"apparmor_profile": "k8s-strict"}, "apparmor_profile", "localhost/NAME"),
        ({"apparmor": cri.SecurityProfile(profile_type=5)}, "apparmor.profile_type", "5 is no type"),  # type: ignore[arg-type]
    ],
)
def test_bad_apparmor(asked: dict[str, Any], field: str, word: str) -> None:
    refused(lambda: made(secure(**asked), host=ARMOUR), f"{SECURITY}.{field}", word)


@pytest.mark.parametrize("asked", [{}, {"apparmor": profile(RuntimeDefault)}, {"apparmor_profile": "runtime/default"}])
def test_the_own_profile_is_loaded(asked: dict[str, Any]) -> None:
    """When a container needs it, where the kernel has none of its name; what its administrator has loaded stays."""
    lookups = Lookups(loaded=("k8s-strict",))
    assert made(secure(**asked), host=ARMOUR, lookups=lookups).document["process"]["apparmorProfile"] == "ocirt-default"
    assert lookups.loaded == ("k8s-strict", "ocirt-default")
    there = Lookups(unloadable="there is one")
    assert made(secure(**asked), host=ARMOUR, lookups=there).document["process"]["apparmorProfile"] == "ocirt-default"


@pytest.mark.parametrize("asked", [{"apparmor": profile(RuntimeDefault)}, {"apparmor_profile": "runtime/default"}])
def test_the_own_profile_cannot_be_had(asked: dict[str, Any]) -> None:
    """Who asked for it is told; who did not has a container as on a host without AppArmor."""
    lookups = Lookups(loaded=(), unloadable="no parser")
    (field,) = asked
    refused(lambda: made(secure(**asked), host=ARMOUR, lookups=lookups), f"{SECURITY}.{field}", "no parser", code="unsupported")
    assert lookups.warnings == ()
    assert "apparmorProfile" not in made(host=ARMOUR, lookups=lookups).document["process"]
    assert len(lookups.warnings) == 1
    assert lookups.warnings[0].startswith("a container without AppArmor's confinement: not loaded: no parser")


@pytest.mark.parametrize("asked", [{"apparmor_profile": ""}, {"apparmor": profile(RuntimeDefault)}])
def test_a_profile_of_the_node(asked: dict[str, Any]) -> None:
    """One that the configuration names: nothing else goes by its name, and nobody runs without it."""
    chosen = with_settings(apparmor_profile="site")
    lookups = Lookups(loaded=("site",))
    assert made(secure(**asked), host=ARMOUR, settings=chosen, lookups=lookups).document["process"]["apparmorProfile"] == "site"
    (field,) = asked
    given = secure(**asked)
    refused(lambda: made(given, host=ARMOUR, settings=chosen), f"{SECURITY}.{field}", "no profile 'site'", code="unsupported")


def test_host_without_apparmor() -> None:
    assert "apparmorProfile" not in made().document["process"]
    assert "apparmorProfile" not in made(secure(apparmor=profile(RuntimeDefault))).document["process"]
    given = secure(apparmor=profile(Localhost, "k8s-strict"))
    refused(lambda: made(given), f"{SECURITY}.apparmor.localhost_ref", "not enabled", code="unsupported")


@pytest.mark.parametrize(
    ("asked", "process", "files"),
    [
        ({}, "system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2"),
        ({"level": "s0:c7,c8"}, "system_u:system_r:container_t:s0:c7,c8", "system_u:object_r:container_file_t:s0:c7,c8"),
        (
            {"user": "u", "role": "r", "type": "t", "level": "s0"},
            "u:r:t:s0",
            "system_u:object_r:container_file_t:s0",
        ),
    ],
)
def test_selinux(asked: dict[str, str], process: str, files: str) -> None:
    owner = pod(labels=("system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2"))
    given = secure(selinux_options=cri.SELinuxOption(**asked))
    found = made(given, of=owner, host=with_host(selinux=True)).document
    assert (found["process"]["selinuxLabel"], found["linux"]["mountLabel"]) == (process, files)
    assert "selinuxLabel" not in made(given, of=owner).document["process"]


def test_selinux_of_a_privileged_container() -> None:
    found = made(secure(privileged=True), of=secure_pod(privileged=True), host=with_host(selinux=True)).document
    assert found["process"]["selinuxLabel"] == "system_u:system_r:spc_t:s0"


@pytest.mark.parametrize("part", ["user", "role", "type", "level"])
def test_bad_selinux(part: str) -> None:
    given = secure(selinux_options=cri.SELinuxOption(**{part: "a b"}))
    refused(lambda: made(given), f"{SECURITY}.selinux_options.{part}", "no " + part)


# -- the rest ------------------------------------------------------------------------------------------------------------------


def test_paths() -> None:
    """As they are asked for: callers send the usual ones, and none for an unmasked /proc."""
    found = made(secure(masked_paths=["/bin/ls", "/proc/kcore"], readonly_paths=["/tmp"])).document["linux"]
    assert (found["maskedPaths"], found["readonlyPaths"]) == (["/bin/ls", "/proc/kcore"], ["/tmp"])
    assert made().document["linux"]["maskedPaths"] == []


def test_no_new_privileges_and_root() -> None:
    assert made().document["process"]["noNewPrivileges"] is False
    assert made(secure(no_new_privs=True)).document["process"]["noNewPrivileges"] is True
    assert made().document["root"] == {"path": "rootfs", "readonly": False}
    assert made(secure(readonly_rootfs=True)).document["root"]["readonly"] is True


def test_privileged() -> None:
    """All capabilities and devices, no filter, no masks, sysfs and cgroups to write to, the host's cgroup namespace."""
    given = secure(
        privileged=True,
        seccomp=profile(Localhost, "/nowhere"),
        masked_paths=["/proc/kcore"],
        readonly_paths=["/proc/sys"],
        capabilities=cri.Capability(drop_capabilities=["ALL"]),
    )
    found = made(given, of=secure_pod(privileged=True)).document
    assert set(found["process"]["capabilities"]["bounding"]) == set(NAMES)
    assert not {"seccomp", "maskedPaths", "readonlyPaths"} & found["linux"].keys()
    assert found["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert [node["path"] for node in found["linux"]["devices"]] == ["/dev/fuse", "/dev/sda"]
    assert "cgroup" not in [one["type"] for one in found["linux"]["namespaces"]]
    writable = {one["destination"]: one["options"] for one in found["mounts"]}
    assert "ro" not in writable["/sys"]
    assert "ro" not in writable["/sys/fs/cgroup"]


def test_privileged_without_the_hosts_devices() -> None:
    found = made(secure(privileged=True), of=secure_pod(privileged=True), settings=with_settings(host_devices=False)).document
    assert "devices" not in found["linux"]
    assert found["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]


def test_privileged_in_a_pod_that_is_not() -> None:
    refused(lambda: made(secure(privileged=True)), f"{SECURITY}.privileged", "no privileged container allowed in sandbox")


def test_privileged_in_a_user_namespace() -> None:
    """All that the user namespace gives, which is nothing outside of it."""
    modes = userns()
    given = secure(privileged=True, namespace_options=modes)
    found = made(given, of=secure_pod(privileged=True, namespace_options=modes)).document
    assert set(found["process"]["capabilities"]["bounding"]) == set(NAMES)
    assert [node["path"] for node in found["linux"]["devices"]] == ["/dev/fuse", "/dev/sda"]
