"""Our judgement of config.json beside the specification's own JSON schema (the Go module of runtime-spec, version 1.3.0)."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocirt.spec.check import check
from ocirt.spec.whole import check_whole
from tests.coverage_table import table
from tests.support.schema import MissingError, Schema, directory
from tests.unit.spec.documents import GONE, changed, put
from tests.unit.spec.test_broken import MEANING, SHAPE, WARNINGS
from tests.unit.spec.test_properties import JSON, NUMBERS, PLACES, WORDS

# What the schema refuses and we take, by pointer: callers send it, or the specification's text allows it.
TAKEN = {
    r"/linux/rootfsPropagation": 'rshared and the like, which runc takes and callers send; "" is the default',
    r"/linux/resources/pids: lacks limit": "an empty section sets no limit, and was allowed before version 1.3",
    r"/linux/devices/\d+/fileMode": "the bits of the file's type, as podman sends them from stat(2): the schema ends at 512",
}

# What the schema takes and we refuse: the text of the specification, the kernel, or the host does not allow it.
REFUSED = (
    # what a container cannot be without
    r'lacks "(process|root|linux|cwd|containerID|hostID|size|access|type|major|minor|path|defaultAction|allow|class)"',
    r"args must not be empty|name of the program is empty|is empty|an empty name",
    r"without a mount namespace|a second namespace of the type|needs a mapping of|without a user namespace",
    r"needs a UTS namespace|offsets (without|for) a time namespace|has no namespace of its own for it",
    r"without a network namespace",
    # strings that the kernel could not take
    r"NUL character|has \d+ bytes|is not an absolute path|is not absolute",
    r"is not a version|not supported",
    r'has no "="|no name before the "="|is not an environment variable',
    # names
    r"is not a resource limit|is given twice|is not known here|is the same for the whole host",
    r"is not the name of a (kernel parameter|device|network device)|invalid network device name|is the name of two devices",
    r"invalid intelRdt\.ClosID|does not begin with (L3|MB)|has more than one line|limits nothing",
    r'conflicts with the property "hostname"|is not the size of a page|is not a file of a cgroup|is not a list of numbers',
    # numbers
    r"out of range|is above|is below|stands for no one|maps no ids|beyond the last id|overlaps|entries|needs one of memory",
    r"is not mapped|effective but not permitted|gives the device no weight|returns no errno|without access|is not an access",
    r"without a listener|listenerPath is not set",
    # mounts
    r"a bind mount (needs a source|takes no options)|neither a bind mount nor|cannot be of the type|inside /proc",
    r"only a bind mount can be id-mapped|idmap needs mappings|needs both uids and gids mapped|without \"[ug]idMappings\"",
)


@pytest.fixture(scope="module")
def schema() -> Schema:
    """The schema, or a skip that says why there is none."""
    try:
        directory()
    except MissingError as err:
        pytest.skip(str(err))
    return Schema()


def errors(document: Any) -> list[tuple[str, str, str, str]]:
    """Our errors."""
    return [finding for finding in check_whole(copy.deepcopy(document)) if finding[3] == "error"]


def without_nulls(value: Any) -> Any:
    """The document as Go's decoder understands it."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def agree(schema: Schema, document: Any) -> None:
    """What the schema refuses, we refuse; what we refuse beyond it is in the list. Null members are as good as absent."""
    findings = errors(document)
    violations = schema.violations(without_nulls(document)) if isinstance(document, dict) else ["not an object"]
    if violations and not findings:
        unexplained = [text for text in violations if not any(re.match(pattern, text) for pattern in TAKEN)]
        assert not unexplained, (unexplained, document)
    if findings and not violations:
        beyond = [finding for finding in findings if not any(re.search(each, finding[1]) for each in REFUSED)]
        assert not beyond, beyond


CASES: list[Any] = [case[0] for case in (*SHAPE, *MEANING, *WARNINGS)]


@pytest.mark.parametrize("changes", CASES, ids=range(len(CASES)))
def test_known_mistakes(schema: Schema, changes: dict[str, Any]) -> None:
    """One wrong thing at a time."""
    agree(schema, changed(changes))


@settings(max_examples=1500)
@given(
    st.sampled_from(PLACES),
    st.one_of(JSON, NUMBERS, st.sampled_from(WORDS), st.just(GONE)),
    st.one_of(st.just({}), st.sampled_from(CASES)),
)
def test_mutated_documents(schema: Schema, place: tuple[Any, str], value: Any, more: dict[str, Any]) -> None:
    """Anything anywhere, beside another mistake."""
    build, pointer = place
    document = build()
    for at, item in [*more.items(), (pointer, value)]:
        try:
            put(document, at, GONE if item is GONE else copy.deepcopy(item))
        except (LookupError, TypeError, AttributeError, ValueError):
            pass  # another change has taken its place
    agree(schema, document)


def test_every_property_has_a_row_in_the_table_of_coverage(schema: Schema) -> None:
    """And no row is about something that the schema does not have."""
    assert set(schema.entries()) == set(table())


def test_every_property_of_the_schema_is_in_our_tables(schema: Schema) -> None:
    """A property that our tables lacked would be reported as unknown; a value that they lacked as wrong."""
    for entry in schema.entries():
        pointer, _, value = entry.partition("=")
        place = pointer.replace("/{}", "/name").replace("/*", "/0")
        document: dict[str, Any] = {"ociVersion": "1.3.0"}
        node: Any = value or None
        for token in reversed(place.split("/")[1:]):
            node = [node] if token == "0" else {token: node}
        document |= node
        for at, message, _, _ in check(document):
            assert not (at == place and "not a property" in message), entry
            assert not (value and at == place and ("not known" in message or "but" in message)), (entry, message)


@pytest.mark.parametrize("kind", ["good", "bad"])
def test_the_examples_of_the_specification(schema: Schema, kind: str) -> None:
    """Those that the module itself is tested with."""
    seen = 0
    for path in sorted((directory() / "schema" / "test" / "config" / kind).glob("*.json")):
        if path.name == "invalid-json.json":
            continue
        document = json.loads(path.read_text())
        if any(other in document for other in ("zos", "freebsd")):
            continue
        seen += 1
        assert bool(schema.violations(document)) == (kind == "bad"), path.name
        if kind == "bad":
            assert errors(document), path.name
        else:
            agree(schema, document)
    assert seen >= 3


def test_our_reading_of_the_schema_is_that_of_a_validator(schema: Schema) -> None:
    """Where the package jsonschema is at hand, with its reading of draft 4."""
    jsonschema = pytest.importorskip("jsonschema", reason="the package jsonschema is not installed")
    referencing = pytest.importorskip("referencing", reason="the package referencing is not installed")
    draft4 = pytest.importorskip("referencing.jsonschema").DRAFT4
    base = "https://example.org/"
    registry = referencing.Registry()
    for path in (directory() / "schema").glob("*.json"):
        document = json.loads(path.read_text().replace('"#definitions/', '"#/definitions/')) | {"id": base + path.name}
        registry = registry.with_resource(base + path.name, referencing.Resource(document, draft4))
    validator = jsonschema.Draft4Validator({"$ref": base + schema.name}, registry=registry)
    for changes in CASES:
        mutated = changed(changes)
        theirs = {"".join(f"/{token}" for token in error.absolute_path) for error in validator.iter_errors(mutated)}
        ours = {text.partition(": ")[0] for text in schema.violations(mutated)}
        assert theirs == ours, changes
