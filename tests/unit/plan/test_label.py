"""Confinement by AppArmor and SELinux: what is written where, when, and what a host without them says."""

from __future__ import annotations

from errno import ENOENT
from typing import Any

import pytest

from ocirt.errors import Error
from ocirt.plan import INIT, STAGE
from tests.support.bundle import default_config, edited
from tests.unit.plan.plans import HOOKS, LABELS, WAITER, at, create, execution, find, host, in_order, made, operations, the

BOTH = ("AppArmor", "SELinux")
LABEL = "system_u:object_r:container_file_t:s0"


@pytest.mark.parametrize(
    ("process", "linux", "modules", "pointer"),
    [
        ({"apparmorProfile": "x"}, {}, (), "/process/apparmorProfile"),
        ({"apparmorProfile": "x"}, {}, ("SELinux",), "/process/apparmorProfile"),
        ({"selinuxLabel": "a:b:c"}, {}, ("AppArmor",), "/process/selinuxLabel"),
        ({}, {"mountLabel": "a:b:c"}, (), "/linux/mountLabel"),
    ],
)
def test_a_host_without_it(process: Any, linux: Any, modules: tuple[str, ...], pointer: str) -> None:
    with pytest.raises(Error, match="is not enabled on this host") as caught:
        made(edited(default_config(), process=process, linux=linux), host(modules=modules))
    assert (caught.value.code, caught.value.subject) == ("unsupported", pointer)
    if process:
        with pytest.raises(Error, match="is not enabled on this host"):
            execution(host(modules=modules), **process)


def test_empty_ones_ask_for_nothing() -> None:
    plan = create(process={"apparmorProfile": "", "selinuxLabel": ""}, linux={"mountLabel": ""})
    assert not [each for each in plan if each[1].startswith("label.")]


def test_a_profile() -> None:
    """Where AppArmor has no directory of its own (before Linux 5.8), the attribute that all modules share."""
    plan = create(host(modules=BOTH), process={"apparmorProfile": "docker-default"})
    step = the(plan, "label.write", side=INIT)
    assert step[2] == ("attr/apparmor/exec", "exec docker-default")
    assert step[4] == {ENOENT: ("label.write", ("attr/exec", "exec docker-default"))}


def test_it_is_written_while_the_host_s_proc_is_in_sight() -> None:
    """After the hooks that init runs as the runtime does; before the tree becomes the root, or the container's is joined."""
    plan = create(host(modules=BOTH), process=LABELS, hooks=HOOKS)
    exec_attributes = [index for index in find(plan, "label.write") if "/exec" in plan[index][2][0]]
    assert len(exec_attributes) == 2
    assert max(find(plan, "hooks.run", "createContainer")) < min(exec_attributes)
    assert max(exec_attributes) < min(find(plan, "tree.pivot"))
    joined = execution(host(modules=BOTH), **LABELS)
    assert [each[2][1] for each in joined if each[1] == "label.write"] == ["exec docker-default", LABELS["selinuxLabel"]]
    assert max(find(joined, "label.write", side=INIT)) < at(joined, "namespace.join_target", side=INIT)
    staged = execution(host(root=False, modules=BOTH), kinds=("mount", "user"), paths={}, **LABELS)
    assert {each[0] for each in staged if each[1] == "label.write"} == {STAGE}
    in_order(staged, "label.write", "namespace.join_target", "process.clone_sibling")


def test_the_waiter_must_not_be_the_one_that_is_confined() -> None:
    on = host(waiter=WAITER, modules=BOTH)
    assert "waiter.hand_over" in operations(create(on))
    for name, value in LABELS.items():
        plan = operations(create(on, process={name: value}))
        assert "waiter.hand_over" not in plan
        assert "barrier.wait" in plan


def test_the_keyring_is_the_process_s() -> None:
    plan = create(host(modules=BOTH), process={"selinuxLabel": "a:b:c"})
    first, last = find(plan, "label.write", "attr/keycreate")
    assert [each[1] for each in plan[first : last + 1]] == ["label.write", "process.join_keyring", "label.write"]
    assert (plan[first][2][1], plan[last][2][1]) == ("a:b:c", "")


def test_mounts_get_the_label_as_an_option() -> None:
    """But for those whose labels are the policy's; mqueue takes it as an attribute; and what hides directories has it too."""
    plan = create(host(modules=BOTH), linux={"mountLabel": LABEL})
    labelled = {each[2][1]: ("context", LABEL) in each[2][3] for each in plan if each[1] == "mount.new"}
    assert labelled == {"proc": False, "sysfs": False, "mqueue": False, "devpts": True, "tmpfs": True}
    (mqueue,) = [index for index in find(plan, "mount.new") if plan[index][2][1] == "mqueue"]
    assert the(plan, "label.set_file")[2] == (plan[mqueue][2][0], LABEL)
    in_order(plan, "label.mask", "mount.mask")
    assert the(plan, "label.mask")[2] == (LABEL,)
