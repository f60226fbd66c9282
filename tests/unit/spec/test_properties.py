"""Whatever JSON comes in: the checker returns findings that point into the document, and never fails itself."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocirt import jsonlite
from ocirt.cli.spec import default
from ocirt.errors import Error
from ocirt.spec.check import check
from ocirt.spec.load import read_spec
from ocirt.spec.process import check_process_document
from ocirt.spec.resources import check_resources_document
from ocirt.spec.shape import PROCESS, RESOURCES, SPEC
from tests.unit.spec.documents import CALLERS, GONE, get, put, user_namespace


def _names(shape: Any) -> Iterator[str]:
    if isinstance(shape, dict):
        for name, inner in shape.items():
            if isinstance(name, str):
                yield name
            yield from _names(inner)
    elif isinstance(shape, list):
        yield from _names(shape[0])
    elif isinstance(shape, tuple) and all(isinstance(item, str) for item in shape):
        yield from shape


# Words of the specification reach deeper than random ones.
WORDS = sorted(
    {*_names(SPEC), "tmpfs", "bind", "rbind", "idmap", "RLIMIT_CPU", "CAP_KILL", "/", "/proc", "net.core", "1.0.0", "rwm", "a=b"}
)
NUMBERS = st.sampled_from([-2, -1, 0, 1, 2, 100, 1000, 65536, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 64, 1 << 200])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.integers(),
    st.floats(allow_nan=False),
    st.sampled_from(WORDS),
    st.text(max_size=8),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(WORDS), st.text(max_size=4)), inner, max_size=5),
    ),
    max_leaves=20,
)


def pointers(document: Any, prefix: str = "") -> Iterator[str]:
    """Those of all values in the document."""
    yield prefix
    items = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, item in items:
        yield from pointers(item, f"{prefix}/{str(key).replace('~', '~0').replace('/', '~1')}")


def well_formed(findings: list[tuple[str, str, str, str]], document: Any, original: Any) -> None:
    """Each names a value of the document, or one that its parent lacks; each says what is wrong and what would be right."""
    for pointer, message, hint, severity in findings:
        assert severity in ("error", "warning")
        assert message
        assert hint
        assert not pointer or pointer.startswith("/")
        try:
            get(original, pointer)
        except LookupError:
            get(document, pointer.rpartition("/")[0])


@given(JSON)
def test_any_document(document: Any) -> None:
    for judge in (check, check_process_document, check_resources_document):
        judged = copy.deepcopy(document)
        findings = judge(judged)
        well_formed(findings, judged, document)
        # Nothing but members that are null goes.
        assert judged == document or any("null" in finding[1] for finding in findings)


SPECS = [default, *CALLERS]
PLACES = [(build, pointer) for build in SPECS for pointer in pointers(build()) if pointer]


@settings(max_examples=400)
@given(st.sampled_from(PLACES), st.one_of(JSON, st.just(GONE)), st.booleans(), st.booleans())
def test_one_mutation(place: tuple[Any, str], value: Any, mapped: bool, rootless: bool) -> None:
    build, pointer = place
    document = build()
    if mapped and build is default:
        for change, item in user_namespace().items():
            put(document, change, item)
    put(document, pointer, value)
    original = copy.deepcopy(document)
    well_formed(check(document, rootless), document, original)


@settings(max_examples=200)
@given(st.sampled_from([pointer for build, pointer in PLACES if build is default]), st.data())
def test_a_wrong_type_is_found_where_it_is(pointer: str, data: st.DataObject) -> None:
    """The type of any value of a good spec is changed: the first error points to just this value."""
    document = default()
    kinds = {dict: st.just({}), list: st.just([]), str: st.just("x"), int: st.just(7), bool: st.just(True)}
    value = get(document, pointer)
    put(document, pointer, data.draw(st.one_of([kind for key, kind in kinds.items() if key is not type(value)])))
    errors = [finding for finding in check(document) if finding[3] == "error"]
    assert errors[0][0] == pointer


@settings(max_examples=150)
@given(st.one_of(st.binary(max_size=60), JSON.map(lambda document: jsonlite.dumps(document).encode())))
def test_any_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(Error) as caught:  # nothing of this size is a whole config.json
        read_spec(str(tmp_path))
    assert caught.value.code in ("invalid", "unsupported")
    assert caught.value.message


@pytest.mark.parametrize(
    "nested",
    [
        b'{"x":' * 100000,
        b"[" * 100000 + b"]" * 100000,
        b"[" * 900 + b"]" * 900,
        b"[" * 3000 + b'"\\ud83d\\udc33"' + b"]" * 3000,
    ],
    ids=["open", "very deep", "deep", "deep with surrogates"],
)
def test_deep_nesting(tmp_path: Path, nested: bytes) -> None:
    (tmp_path / "config.json").write_bytes(nested)
    with pytest.raises(Error):
        read_spec(str(tmp_path))


def test_deep_nesting_where_nobody_looks(tmp_path: Path) -> None:
    """A value of an unknown property is not walked, so its depth does not matter."""
    document = jsonlite.dumps({**default(), "unknown": 0})
    (tmp_path / "config.json").write_text(document.replace('"unknown":0', '"unknown":' + "[" * 500 + "]" * 500))
    assert read_spec(str(tmp_path))["hostname"] == "runc"


@pytest.mark.parametrize("table", [SPEC, PROCESS, RESOURCES])
def test_required_names_are_in_their_tables(table: Any) -> None:
    stack = [table]
    seen = 0
    while stack:
        shape = stack.pop()
        if isinstance(shape, dict):
            seen += 1
            assert set(shape.get(None, ())) <= set(shape)
            stack += [inner for name, inner in shape.items() if name is not None]
        elif isinstance(shape, list):
            stack.append(shape[0])
    assert seen >= 5
