"""The unit of systemd and the example for crictl that a package brings."""

from __future__ import annotations

from ocirt_cri.keys import BY_NAME
from tests.support.build import ROOT

INSTALL = ROOT / "cri" / "install"


def entries(text: str) -> dict[str, dict[str, str]]:
    """Sections of a unit, each with its entries. No key comes twice in it."""
    found: dict[str, dict[str, str]] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            found[section] = {}
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            assert key not in found[section]
            found[section][key] = value
    return found


def test_the_unit() -> None:
    """What keeps containers running while the daemon is restarted, or while something of it is killed for memory."""
    found = entries((INSTALL / "ocirtd.service").read_text())
    service = found["Service"]
    assert service["Type"] == "notify"
    assert (service["KillMode"], service["Delegate"], service["OOMPolicy"]) == ("process", "yes", "continue")
    assert (service["Restart"], service["TasksMax"]) == ("always", "infinity")
    assert int(service["LimitNOFILE"]) >= 1 << 20
    assert int(service["OOMScoreAdjust"]) < 0
    # A name without a path is looked for in /usr/local/bin, /usr/bin and so on (systemd.service(5)).
    assert service["ExecStart"] == "ocirtd"
    # Mounts, devices and namespaces of pods are the machine's.
    assert not [key for key in service if key.startswith(("Private", "Protect", "Restrict", "ReadOnly", "NoNewPrivileges"))]
    assert found["Install"]["WantedBy"] == "multi-user.target"


def test_the_example_for_crictl() -> None:
    text = (INSTALL / "crictl.yaml").read_text()
    values = dict(line.split(": ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values["runtime-endpoint"] == values["image-endpoint"] == BY_NAME["listen"].default
