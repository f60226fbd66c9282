"""Build the launcher: `python launcher/build.py DIRECTORY` puts `ocirt`, its other names and `ocirt-python` there.

`python launcher/build.py archive` puts each package's byte code into one file, for this interpreter (see loader.py).

The packaging backend uses the same functions. The launcher needs a C compiler with the kernel's headers, and no C library.
"""

from __future__ import annotations
import __future__

import ast
import marshal
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import CodeType

HERE = Path(__file__).resolve().parent
FLAGS = (
    *("-std=gnu11", "-O2", "-Wall", "-Wextra", "-ffreestanding", "-fno-stack-protector", "-fno-pie", "-fcf-protection=none"),
    *("-fno-asynchronous-unwind-tables", "-nostdlib", "-static", "-s", "-Wl,--build-id=none", "-Wl,-z,noexecstack"),
)
COMPANION = '''\
#!{python}
{home}"""The launcher `ocirt` beside this file reads in the first line which Python to start."""

import sys

print(sys.executable)
'''


# What else the launcher is called; boot.py asks for the name.
OTHER_NAMES = ("ocirt-cni", "ocirt-csi", "ocirtd", "containerd-shim-ocirt-v2")
# These lie in the package, so that they are found with it (ocirt/containers/host.py, podinit.py).
IN_PACKAGE = {"waiter": "ocirt/kernel/waiter", "podinit": "ocirt/kernel/podinit"}


def boot_text() -> str:
    """boot.py without comments and docstring."""
    tree = ast.parse((HERE / "boot.py").read_text())
    return ast.unparse(ast.Module(tree.body[1:], [])) + "\n"


def boot_header() -> str:
    """boot.py as a C header."""
    escaped = boot_text().replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'#define BOOT "{escaped}"\n'


def shell_launcher() -> str:
    """The command for an installation without a compiler."""
    return (HERE / "launcher.sh").read_text().replace("'BOOT'", shlex.quote(boot_text()))


def companion(python: str = "python", home: str = "") -> str:
    """The text of `ocirt-python`. An installer writes its own interpreter in the place of `#!python`.

    `home` is the folder that holds the package `ocirt`, where that is not one that the launcher looks at by itself.
    """
    return COMPANION.format(python=python, home=f"# home: {home}\n" if home else "")


# The packages that the launcher hands over to, each in the folder of a clone that holds it.
PACKAGES = (HERE.parent / "ocirt", HERE.parent / "cni" / "ocirt_cni")
# What a verb of `ocirt` loads in functions, in the usual case: modules beside `cli.VERB` and what that imports.
_STEPS = ("cgroup", "device", "mount", "namespace", "process", "program", "state", "stdio", "sync", "tree", "user")
_CREATE = ("spec.check", "spec.mounts", "spec.rlimits", "cgroups.control", *("kernel.steps." + name for name in _STEPS))
_GROUPS: dict[str, tuple[str, ...]] = {
    "create": (*_CREATE, "kernel.steps.barrier", "kernel.steps.waiter"),
    "delete": ("cgroups.control",),
    "exec": (
        *("spec.process", "spec.rlimits", "containers.attach"),
        *("kernel.steps." + name for name in _STEPS if name not in ("device", "mount", "tree")),
    ),
    "kill": (),
    "run": (*_CREATE, "containers.attach"),
    "start": (),
    "state": (),
}
# The same for a plugin of networks and a command of CNI. "X, then": what is loaded after X, while the kernel is at work.
_PLUGIN = ("skeleton", "plugins")
_RULES = ("nft.changes",)
_LEASES = ("ipam.delegate", "ipam.host_local")
_LINK = ("netns", "plugins.interfaces")
_PLUGIN_GROUPS: dict[str, tuple[str, ...]] = {
    "bandwidth ADD": ("plugins.bandwidth",),
    "bandwidth DEL": ("plugins.bandwidth",),
    "bridge ADD": ("plugins.bridge", "plugins.bridge_attach", *_LEASES, *_LINK, *_RULES),
    "bridge DEL": ("plugins.bridge",),
    "bridge DEL, then": (*_LEASES, *_RULES),
    "firewall ADD": ("plugins.firewall", "netlink.links", *_RULES),
    "firewall DEL": ("plugins.firewall", *_RULES),
    "host-local ADD": ("ipam.host_local",),
    "host-local DEL": ("ipam.host_local",),
    "loopback ADD": ("plugins.loopback",),
    "loopback DEL": ("plugins.loopback",),
    "portmap ADD": ("plugins.portmap", "plugins.conditions", "plugins.host_ports", "netlink.links", "netlink.routes", *_RULES),
    "portmap DEL": ("plugins.portmap", *_RULES),
    "ptp ADD": ("plugins.ptp", "plugins.ptp_attach", *_LEASES, *_LINK, *_RULES),
    "ptp DEL": ("plugins.ptp",),
    "ptp DEL, then": (*_LEASES, *_RULES),
    "tuning ADD": ("plugins.tuning",),
    "tuning DEL": ("plugins.tuning",),
}
_THEN = ", then"
_READY = "ocirt_cni.nft.ready"


def archive(package: Path, *, checked: bool) -> bytes:
    """The byte code of all modules below `package` as one file, with the code that loads from it in front.

    `checked`: a module is used only as long as its source has the time that it has now (a clone, where it is edited).
    """
    blob = b""
    index, codes, imports = {}, {}, {}
    for path in sorted(package.rglob("*.py")):
        parts = list(path.relative_to(package.parent).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        if is_package:
            parts.pop()
        name = ".".join(parts)
        tree = ast.parse(path.read_text())
        if name == _READY:
            _fill(tree, package.parent)
        imports[name] = _imports(tree)
        codes[name] = _lean_code(tree, str(path) if checked else str(path.relative_to(package.parent)))
        code = marshal.dumps(codes[name])
        index[name] = (len(blob), len(code), is_package, path.stat().st_mtime_ns)
        blob += code
    groups: dict[str, tuple[int, int, list[str]]] = {}
    wanted = {verb: ("cli.main", "cli." + verb, *more) for verb, more in _GROUPS.items()}
    if package.name == "ocirt_cni":
        wanted = {call: (*_PLUGIN, *more) for call, more in _PLUGIN_GROUPS.items()}
    for verb, firsts in wanted.items():
        names: list[str] = []
        for first in firsts:
            _add(f"{package.name}.{first}", imports, names)
        if verb.endswith(_THEN):
            before = groups[verb.removesuffix(_THEN)][2]
            names = [name for name in names if name not in before]
        code = marshal.dumps([codes[name] for name in names])
        groups[verb] = (len(blob), len(code), names)
        blob += code
    loader = _lean_code(ast.parse((HERE / "loader.py").read_text()), "loader.py")
    head = marshal.dumps((loader, index, groups, checked))
    return len(head).to_bytes(4, "little") + head + blob


def _fill(tree: ast.Module, home: Path) -> None:
    """Put into the module of nftables' messages that are ready what it says that they are."""
    command = [
        sys.executable,
        "-I",
        "-B",
        "-c",
        f"import sys; sys.path.append(sys.argv[1]); import {_READY} as it; print(it.made())",
    ]
    made = subprocess.run([*command, str(home)], capture_output=True, text=True, check=True).stdout
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "READY":
            node.value = ast.parse(made, mode="eval").body


def _imports(tree: ast.Module) -> list[str]:
    """What a module imports when it is loaded, as dotted names, of which some may be names in modules."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def _add(name: str, imports: dict[str, list[str]], names: list[str]) -> None:
    """Append a module behind the packages that hold it and the modules that it imports."""
    if name in names or name not in imports:
        return
    _add(name.rpartition(".")[0], imports, names)
    for needed in imports[name]:
        _add(needed, imports, names)
    names.append(name)


def archive_name(package: str) -> str:
    """Where boot.py looks for a package's archive, below the folder that holds the package."""
    return f"{package}/__pycache__/{package}.{sys.implementation.cache_tag}.archive"


class _Bare(ast.NodeTransformer):
    """Takes the types off functions and a module's names: nobody asks for them, and a start takes a hundredth longer with them.

    Those in a class stay: a dataclass asks for them.
    """

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """A function or a method."""
        node.returns = None
        known = node.args
        for one in (*known.posonlyargs, *known.args, known.vararg, *known.kwonlyargs, known.kwarg):
            if one is not None:
                one.annotation = None
        return self.generic_visit(node)

    def visit_Module(self, node: ast.Module) -> ast.AST:
        """What stands in the module itself, not in a function or class."""
        node.body = [
            ast.copy_location(ast.Assign([one.target], one.value), one) if isinstance(one, ast.AnnAssign) and one.value else one
            for one in node.body
        ]
        return self.generic_visit(node)


def _lean_code(tree: ast.Module, name: str) -> CodeType:
    """Code without docstrings, assertions and types, and without the import of `__future__`, which only the compiler needs."""
    tree = _Bare().visit(tree)
    tree.body = [node for node in tree.body if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")]
    found: CodeType = compile(tree, name, "exec", __future__.annotations.compiler_flag, dont_inherit=True, optimize=2)
    return found


def write_archive(package: Path) -> None:
    """Put the archive of a clone's package beside its byte code, whole or not at all."""
    target = package.parent / archive_name(package.name)
    target.parent.mkdir(exist_ok=True)
    scratch = target.with_suffix(f".{os.getpid()}")
    scratch.write_bytes(archive(package, checked=True))
    scratch.replace(target)


def compile_program(name: str, target: Path) -> None:
    """Compile launcher/<name>.c to `target`. Raises RuntimeError when there is no working compiler."""
    compiler = shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or shutil.which("gcc") or shutil.which("clang") or ""]
    if not compiler[0]:
        raise RuntimeError("no C compiler (cc, gcc, clang, or named by CC)")
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "boot.h").write_text(boot_header())
        made = Path(scratch, "ocirt")
        command = [*compiler, *FLAGS, "-I", scratch, str(HERE / f"{name}.c"), "-o", str(made)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise RuntimeError(f"no C compiler: {error}") from error
        sys.stderr.write(done.stderr)
        if done.returncode:
            raise RuntimeError(f"{name}.c does not compile for {os.uname().machine}")
        target.unlink(missing_ok=True)  # it may be running
        shutil.copy2(made, target)


def main(directory: Path) -> None:
    """Build the launcher for a clone into `directory`, for the interpreter that runs this."""
    directory.mkdir(parents=True, exist_ok=True)
    command = directory / "ocirt"
    try:
        compile_program("launcher", command)
        for name, place in IN_PACKAGE.items():
            compile_program(name, HERE.parent / place)
    except RuntimeError as error:
        sys.stderr.write(f"{error}: {command} will be a shell script, slower and without protection of the interpreter's file\n")
        command.write_text(shell_launcher())
    script = directory / "ocirt-python"
    script.write_text(companion(os.path.realpath(sys.executable)))
    for made in (command, script):
        made.chmod(0o755)
    for name in OTHER_NAMES:
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(command.name)


if __name__ == "__main__":
    if sys.argv[1] == "archive":
        for each in PACKAGES:
            write_archive(each)
    else:
        main(Path(sys.argv[1]))
