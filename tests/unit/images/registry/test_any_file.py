"""Files of any content: they are read, or refused with an error that names them; nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_images.errors import Error
from ocirt_images.reference import Reference
from ocirt_images.registry.credentials import Credentials
from ocirt_images.registry.hosts import Hosts
from ocirt_images.registry.registriesconf import Files, Rule

WORDS = st.sampled_from(
    ["", "r.example", "r.example/team", "https://m.example/p", "pull", "5s", "*.example", "a b", "all", "\x7f"]
)
SCALARS = st.one_of(WORDS, st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False))
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=4)
CERTS_D = ["server", "capabilities", "ca", "client", "skip_verify", "override_path", "dial_timeout", "header", "host", "else"]
REGISTRIES = ["prefix", "location", "insecure", "blocked", "mirror", "mirror-by-digest-only", "pull-from-mirror", "else"]
GLOBAL = ["unqualified-search-registries", "short-name-mode", "registry", "aliases", "registries"]
NAME = Reference.parse("r.example/team/app")


def lines(keys: list[str]) -> st.SearchStrategy[str]:
    """Lines of TOML: JSON's scalars and lists are TOML's."""
    tables = st.dictionaries(st.sampled_from(keys), VALUES, max_size=5)
    return tables.map(lambda table: "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()))


def read_or_refused(path: Path, read: object) -> None:
    assert callable(read)
    try:
        read()
    except Error as err:
        assert err.code in ("invalid", "unsupported", "untrusted")
        assert str(path) in str(err)


@pytest.mark.parametrize("head", ["", '[host."https://m.example"]\n', '[host."https://m.example".header]\n'])
@given(text=st.one_of(lines(CERTS_D), st.text(max_size=50)))
def test_hosts_toml(tmp_path: Path, head: str, text: str) -> None:
    path = tmp_path / "r.example/hosts.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(head + text)
    hosts = Hosts(folders=(tmp_path,))
    read_or_refused(path, lambda: hosts.lookup(NAME))


@given(text=st.one_of(st.tuples(lines(GLOBAL), lines(REGISTRIES), lines(REGISTRIES)), st.text(max_size=50)))
def test_registries_conf(tmp_path: Path, text: str | tuple[str, str, str]) -> None:
    path = tmp_path / "registries.conf"
    whole = text if isinstance(text, str) else f"{text[0]}[[registry]]\n{text[1]}[[registry.mirror]]\n{text[2]}"
    path.write_text(whole)
    hosts = Hosts(registries=Files({"HOME": str(tmp_path)}, etc=tmp_path))
    read_or_refused(path, lambda: hosts.lookup(NAME))


@given(
    value=st.one_of(
        st.dictionaries(
            st.sampled_from(["auths", "credsStore", "credHelpers"]),
            st.one_of(VALUES, st.dictionaries(st.sampled_from(["r.example", "r.example/team"]), VALUES)),
        ),
        VALUES,
        st.binary(max_size=20),
    )
)
def test_config_json(tmp_path: Path, value: object) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    credentials = Credentials(files=[path], environ={"PATH": str(tmp_path)})
    read_or_refused(path, lambda: credentials.find(NAME.name))


PARTS = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=3)


@given(prefix=PARTS, path=PARTS)
def test_a_prefix_matches_whole_parts(prefix: list[str], path: list[str]) -> None:
    rule = Rule(prefix="/".join(["r.example", *prefix]))
    reference = Reference.parse("/".join(["r.example", *path]))
    assert rule.matches(reference) == (path[: len(prefix)] == prefix)
