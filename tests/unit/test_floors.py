"""The house's order: imports go down only, and the runtime's floor needs the standard library alone (see DESIGN's table)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Floor: (where its package lies, which floors it may import). From the top down.
FLOORS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cri": ("cri/ocirt_cri", ("csi", "cni", "images", "shim", "api", "ocirt")),
    "csi": ("csi/ocirt_csi", ("api",)),
    "cni": ("cni/ocirt_cni", ()),
    "images": ("images/ocirt_images", ()),
    "shim": ("shim/ocirt_shim", ("ocirt", "api")),
    "api": ("api/ocirt_api", ()),
    "ocirt": ("ocirt", ()),
}
PACKAGES = {Path(place).name: floor for floor, (place, _) in FLOORS.items()}
OUTSIDE = ("tests", "conformance", "bench")  # may import everything; nothing above imports them
# What the runtime may use if it is installed, inside a function only.
OPTIONAL = {"ocirt": {"jsonschema"}}


def imports(tree: ast.Module) -> Iterator[tuple[str, bool, int]]:
    """Each imported module of a file: its dotted name, whether the import stands in a function, its line."""
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for child in ast.walk(node)
    }  # fmt: skip
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "."] if not node.level else ["." * node.level]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "__import__":
            first = node.args[0] if node.args else None
            while isinstance(first, ast.BinOp):
                first = first.left  # "ocirt.cli." + verb
            if isinstance(first, ast.Constant):
                names = [str(first.value)]
        for name in names:
            yield name, id(node) in inside, getattr(node, "lineno", 0)


def for_type_checkers_only(tree: ast.Module) -> set[int]:
    """The lines below `if TYPE_CHECKING:`."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for child in node.body:
                lines.update(range(child.lineno, (child.end_lineno or child.lineno) + 1))
    return lines


def findings(floor: str, text: str, where: str) -> list[str]:
    """What is wrong with the imports of one file of a floor."""
    tree = ast.parse(text)
    ignored = for_type_checkers_only(tree)
    allowed = FLOORS[floor][1]
    found = []
    for name, in_function, line in imports(tree):
        top = name.partition(".")[0]
        if not top:
            found.append(f"{where}:{line}: a relative import ({name})")
        elif top in OUTSIDE:
            found.append(f"{where}:{line}: {floor} imports {name}")
        elif PACKAGES.get(top, floor) != floor and PACKAGES[top] not in allowed:
            found.append(f"{where}:{line}: {floor} imports {name}, which is not below it")
        elif floor == "ocirt" and top not in PACKAGES and top not in sys.stdlib_module_names and line not in ignored:
            if top not in OPTIONAL["ocirt"]:
                found.append(f"{where}:{line}: the runtime imports {name}, which is not in the standard library")
            elif not in_function:
                found.append(f"{where}:{line}: {name} is optional: import it in the function that uses it")
    return found


def files_of(floor: str) -> list[Path]:
    """The Python files of a floor that exists already."""
    return sorted((ROOT / FLOORS[floor][0]).rglob("*.py"))


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_go_down_only(floor: str) -> None:
    problems = [problem for path in files_of(floor) for problem in findings(floor, path.read_text(), str(path.relative_to(ROOT)))]
    assert not problems, "\n".join(problems)


def test_the_runtime_is_there() -> None:
    assert len(files_of("ocirt")) > 10


@pytest.mark.parametrize(
    ("floor", "text", "word"),
    [
        ("ocirt", "import ocirt_api", "not below"),
        ("ocirt", "from ocirt_cri.server import x", "not below"),
        ("cni", "def f():\n    import ocirt.errors", "not below"),
        ("images", "from ocirt import errors", "not below"),
        ("shim", "import ocirt_images.store", "not below"),
        ("csi", "import ocirt_cni", "not below"),
        ("ocirt", "import grpc", "not in the standard library"),
        ("ocirt", "__import__('grpc.aio')", "not in the standard library"),
        ("ocirt", "import jsonschema", "optional"),
        ("ocirt", "from . import errors", "relative"),
        ("cri", "from tests.support import bundle", "imports tests"),
    ],
)
def test_a_wrong_import_is_found(floor: str, text: str, word: str) -> None:
    found = findings(floor, text, "x.py")
    assert len(found) == 1
    assert word in found[0]


@pytest.mark.parametrize(
    ("floor", "text"),
    [
        ("cri", "import grpc, ocirt_csi, ocirt_cni.runner, ocirt.errors"),
        ("shim", "from ocirt_api import ttrpc"),
        ("ocirt", "import posix\nfrom ocirt.errors import Error\ndef check():\n    import jsonschema"),
        ("ocirt", "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from _typeshed import X"),
        ("ocirt", "__import__('ocirt.cli.' + verb)"),
    ],
)
def test_a_right_import_is_not(floor: str, text: str) -> None:
    assert findings(floor, text, "x.py") == []
