"""The launcher alone: what it hands to Python, and from which file Python runs.

It is built as for a clone, beside a package `ocirt` that only writes down what it finds.
"""

from __future__ import annotations

import itertools
import json
import os
import py_compile
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.build import ROOT

# The interpreter that `make` chose.
PYTHON = (ROOT / "build/ocirt-python").read_text().splitlines()[0].removeprefix("#!")
PREFIX = str(Path(PYTHON).parents[1])
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
# Root as in a container: it may not mount.
NO_ADMIN = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--"]
USER_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "--"]

REPORT = """
import posix, sys
def main(name, args):
    import json
    fds = {int(fd): None for fd in posix.listdir("/proc/self/fd")}
    for fd in list(fds):
        try:
            fds[fd] = posix.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            del fds[fd]  # the listing's own
    def read(path):
        fd = posix.open(path, posix.O_RDONLY)
        data = b""
        while chunk := posix.read(fd, 65536):
            data += chunk
        posix.close(fd)
        return data.decode("latin-1")
    executable = "/proc/self/exe"
    sealed = 0
    try:
        import fcntl
        fd = posix.open(executable, posix.O_RDONLY)
        sealed = fcntl.fcntl(fd, 1034)
        posix.close(fd)
    except OSError:
        pass
    if args[1:2] == ["attack"]:  # as in CVE-2019-5736: keep the file, execute something else, then write to the file
        fd = posix.open(executable, posix.O_RDONLY)
        posix.set_inheritable(fd, True)
        attack = f"printf overwritten >/proc/self/fd/{fd}"
        posix.execv("/bin/sh", ["sh", "-c", attack])
    report = {
        "name": name, "args": args[1:], "fds": fds, "environ": read("/proc/self/environ"), "exe": posix.readlink(executable),
        "read_only": posix.statvfs(executable).f_flag & 1, "writable": posix.access(executable, posix.W_OK), "seals": sealed,
        "path": sys.path, "executable": sys.executable, "prefix": sys.prefix, "uid": posix.geteuid(),
        "flags": {key: getattr(sys.flags, key) for key in ("isolated", "no_site", "dont_write_bytecode", "utf8_mode")},
        "mounts": read("/proc/self/mountinfo").count("\\n"), "cwd": posix.getcwd(), "json": json.__file__,
        "loaded": sorted(sys.modules),
    }
    with open(args[0], "w") as out:
        json.dump(report, out)
    posix._exit(7)
"""


class Installed:
    """A launcher in a directory of its own, with the package beside it."""

    def __init__(self, home: Path, python: str = PYTHON) -> None:
        self.home = home
        self.command = home / "bin" / "ocirt"
        self.companion = home / "bin" / "ocirt-python"
        for package in ("ocirt", "ocirt/cli"):
            (home / package).mkdir(parents=True)
            (home / package / "__init__.py").touch()
        (home / "ocirt/cli/main.py").write_text(REPORT)
        for source in home.rglob("*.py"):
            py_compile.compile(str(source), doraise=True)
        subprocess.run([PYTHON, ROOT / "launcher/build.py", home / "bin"], check=True)
        self.name_python(python)
        self.out = home / "out"
        self.out.mkdir(mode=0o777)
        self.out.chmod(0o777)

    def name_python(self, python: str) -> None:
        self.companion.write_text(f"#!{python}\n")

    def start(
        self,
        *,
        before: Sequence[str | Path] = (),
        command: Path | None = None,
        args: Sequence[str] = (),
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run the launcher with `before` in front of it; its report goes to a file."""
        self.report_file.unlink(missing_ok=True)
        line = [*before, command or self.command, self.report_file, *args]
        return subprocess.run(line, text=True, capture_output=True, check=False, timeout=30, **options)

    @property
    def report_file(self) -> Path:
        return self.out / "report"

    def report(self, **options: Any) -> dict[str, Any]:
        """What Python found. Raises AssertionError if it was not reached."""
        done = self.start(**options)
        assert done.returncode == 7, (done.returncode, done.stderr)
        assert done.stderr == ""
        found: dict[str, Any] = json.loads(self.report_file.read_text())
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that other users can enter, which pytest's own is not."""
    path = Path("/var/tmp") / f"ocirt-test-{os.getpid()}-launcher"
    path.mkdir(mode=0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def launcher(place: Path) -> Installed:
    return Installed(place / "home")


SEALED = 0b1111  # F_SEAL_SEAL, SHRINK, GROW, WRITE


def protected(report: dict[str, Any]) -> bool:
    """Whether the file that runs cannot be written to: on a read-only mount, sealed, or not ours."""
    return bool(report["read_only"] or report["seals"] & SEALED == SEALED or (report["uid"] and not report["writable"]))


def test_source_is_short() -> None:
    assert len((ROOT / "launcher/launcher.c").read_text().splitlines()) < 200


def test_exit_status_and_arguments(launcher: Installed) -> None:
    report = launcher.report(args=["a b", "", "--", "-c", "\u00e9"])
    assert report["name"] == "ocirt"
    assert report["args"] == ["a b", "", "--", "-c", "\u00e9"]


def test_arguments_that_are_not_utf8_survive(launcher: Installed) -> None:
    done = subprocess.run([os.fsencode(launcher.command), os.fsencode(launcher.report_file), b"\xff\xfe"], check=False)
    assert done.returncode == 7
    assert os.fsencode(json.loads(launcher.report_file.read_text())["args"][0]) == b"\xff\xfe"


def test_many_arguments(launcher: Installed) -> None:
    args = [str(number) for number in range(20000)]
    assert launcher.report(args=args)["args"] == args


def test_python_is_isolated(launcher: Installed) -> None:
    report = launcher.report()
    assert report["flags"] == {"isolated": 1, "no_site": 1, "dont_write_bytecode": 1, "utf8_mode": 1}
    assert report["path"][-1] == str(launcher.home), "ours comes last"
    assert report["path"][0].startswith(PREFIX)
    assert os.path.realpath(report["executable"]) == PYTHON
    assert "site" not in report["loaded"]


def test_start_loads_nothing_heavy(launcher: Installed) -> None:
    """The launcher's own part of Python loads no module that the bare interpreter has not loaded."""
    text = subprocess.run(
        [PYTHON, "-c", f"import sys; sys.path[0] = {str(ROOT / 'launcher')!r}; import build; print(build.boot_text())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    text = text.replace("from ocirt.cli.main import main", "main = lambda name, args: print(*sorted(sys.modules))")
    bare = subprocess.run(
        [PYTHON, "-I", "-S", "-B", "-c", "import sys; print(*sorted(sys.modules))"], capture_output=True, text=True, check=True
    )
    done = subprocess.run(
        [PYTHON, "-I", "-S", "-B", "-c", text, f"{launcher.home}/bin/", "", "ocirt"], capture_output=True, text=True, check=True
    )
    assert done.stdout == bare.stdout


@pytest.mark.parametrize("name", ["runc", "crun", "o c"])
def test_name_is_that_of_the_link(launcher: Installed, tmp_path: Path, name: str) -> None:
    """argv[0] gives the name and nothing else: the launcher finds itself by what it is."""
    link = tmp_path / name
    link.symlink_to(launcher.command)
    assert launcher.report(command=link)["name"] == name


@pytest.mark.parametrize(("first", "name"), [("runc", "runc"), ("/nowhere/bin/runc", "runc"), ("./x/", ""), ("", "")])
def test_false_argv0(launcher: Installed, first: str, name: str) -> None:
    done = subprocess.run([first, str(launcher.report_file)], executable=launcher.command, check=False)
    assert done.returncode == 7
    assert json.loads(launcher.report_file.read_text())["name"] == name


@pytest.mark.parametrize("closed", [each for count in (1, 2, 3) for each in itertools.combinations(range(3), count)])
def test_closed_streams_are_filled(launcher: Installed, closed: tuple[int, ...]) -> None:
    """A file that is opened later must not become standard output."""
    shell = 'exec "$@" ' + " ".join(f"{fd}<&-" for fd in closed)
    done = launcher.start(before=["sh", "-c", shell, "sh"])
    assert done.returncode == 7
    report = json.loads(launcher.report_file.read_text())
    assert {fd for fd, target in report["fds"].items() if target == "/dev/null"} >= {str(fd) for fd in closed}
    assert set(report["fds"]) == {"0", "1", "2"}


def test_open_descriptors_pass_through_and_none_is_added(launcher: Installed) -> None:
    """LISTEN_FDS and --preserve-fds: what is open from 3 on is what the caller left open."""
    shell = 'exec 3</etc/passwd 7</etc/group; exec "$@"'
    report = launcher.report(before=["sh", "-c", shell, "sh"])
    assert set(report["fds"]) == {"0", "1", "2", "3", "7"}
    assert (report["fds"]["3"], report["fds"]["7"]) == ("/etc/passwd", "/etc/group")


def test_environment_passes_byte_for_byte(launcher: Installed) -> None:
    """Order, what is there twice, bytes that are no text, and no LC_CTYPE of Python's."""
    program = (
        "import os, sys, ctypes\n"
        "block = [b'B=2', b'A=1', b'A=3', b'NOEQUALS', b'', b'LC_ALL=C', b'PYTHONPATH=/nowhere', b'BYTES=\\xff\\xfe', b'=x']\n"
        "libc = ctypes.CDLL(None)\n"
        "args = [os.fsencode(arg) for arg in sys.argv[1:]]\n"
        "pack = lambda texts: (ctypes.c_char_p * (len(texts) + 1))(*texts, None)\n"
        "libc.execve(args[0], pack(args), pack(block))\n"
    )
    report = launcher.report(before=[PYTHON, "-c", program])
    block = b"B=2\0A=1\0A=3\0NOEQUALS\0\0LC_ALL=C\0PYTHONPATH=/nowhere\0BYTES=\xff\xfe\0=x\0"
    assert report["environ"].encode("latin-1") == block


def hostile(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """An environment that leads Python to hostile modules, and the file that tells if one ran."""
    marker = tmp_path / "ran"
    modules = tmp_path / "hostile"
    modules.mkdir()
    for name in ("sitecustomize", "usercustomize", "json", "posix", "encodings", "ocirt", "io"):
        (modules / f"{name}.py").write_text(f"open({str(marker)!r}, 'a').write(__name__ + ' ')\n")
    return {
        "PATH": f"{modules}:/usr/bin:/bin",
        "PYTHONPATH": str(modules),
        "PYTHONHOME": str(modules),
        "PYTHONSTARTUP": str(modules / "json.py"),
        "PYTHONPLATLIBDIR": str(modules),
        "PYTHONUSERBASE": str(modules),
        "PYTHONINSPECT": "1",
        "PYTHONDEVMODE": "1",
        "PYTHONPYCACHEPREFIX": str(modules),
    }, marker


def test_hostile_environment_and_working_directory(launcher: Installed, tmp_path: Path) -> None:
    environment, marker = hostile(tmp_path)
    report = launcher.report(env=environment, cwd=tmp_path / "hostile")
    assert not marker.exists()
    assert report["json"].startswith(PREFIX)


# How the interpreter's file is kept from containers


def test_root_runs_a_read_only_clone(launcher: Installed) -> None:
    """The file itself, on a mount of its own that nobody can reach."""
    mounts = len(Path("/proc/self/mountinfo").read_text().splitlines())
    report = launcher.report()
    assert report["read_only"]
    assert report["mounts"] == mounts


def test_interpreter_cannot_be_overwritten(place: Path) -> None:
    """The attack of CVE-2019-5736, on a copy of the interpreter; without the launcher it succeeds."""
    python = place / "victim"
    shutil.copy(PYTHON, python)
    victim = Installed(place / "attacked", str(python))
    before = python.read_bytes()
    done = victim.start(args=["attack"])
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr
    assert python.read_bytes() == before

    import_main = (
        f"import sys; sys.path.insert(0, {str(victim.home)!r}); from ocirt.cli.main import main; main('x', ['', 'attack'])"
    )
    unprotected = {"PYTHONHOME": PREFIX, "PATH": "/usr/bin:/bin"}
    done = subprocess.run([python, "-B", "-c", import_main], env=unprotected, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert python.read_bytes() == b"overwritten"


def test_user_namespace_runs_a_read_only_clone(launcher: Installed) -> None:
    assert launcher.report(before=USER_NAMESPACE)["read_only"]


def test_nested_user_namespace_runs_a_read_only_clone(launcher: Installed) -> None:
    assert launcher.report(before=[*USER_NAMESPACE, *USER_NAMESPACE])["read_only"]


def test_rootless_user_runs_roots_file_as_it_is(launcher: Installed, place: Path) -> None:
    """No uid that gets into this user's containers could write to it; a copy would cost 2 to 5 ms."""
    report = launcher.report(before=NOBODY)
    assert report["exe"] == PYTHON
    assert protected(report)


@pytest.fixture(scope="module")
def own(place: Path) -> Installed:
    """An interpreter that the user owns, as one from uv or pyenv in a home directory: root in a container could write to it."""
    user = place / "user"
    (user / "bin").mkdir(parents=True)
    python = user / "bin" / "python3"
    shutil.copy(PYTHON, python)
    # A virtual environment's marker lets a copy find the standard library.
    (user / "pyvenv.cfg").write_text(f"home = {os.path.dirname(PYTHON)}\n")
    os.chown(python, 65534, 65534)
    return Installed(place / "own", str(python))


@pytest.fixture
def memfd_noexec() -> Callable[[int], list[str]]:
    """Wraps a command in a pid namespace with that vm.memfd_noexec."""

    def wrap(value: int) -> list[str]:
        if not Path("/proc/sys/vm/memfd_noexec").exists():
            pytest.skip("this kernel has no vm.memfd_noexec")
        script = f'echo {value} >/proc/sys/vm/memfd_noexec && exec "$@"'
        return ["unshare", "--pid", "--fork", "--mount-proc", "--", "sh", "-c", script, "sh"]

    return wrap


def test_rootless_user_runs_a_sealed_copy_of_its_own_interpreter(own: Installed) -> None:
    report = own.report(before=NOBODY)
    assert report["exe"].startswith("/memfd:ocirt")
    assert report["seals"] & SEALED == SEALED
    assert protected(report)


def test_root_that_may_not_mount_runs_a_sealed_copy(launcher: Installed) -> None:
    report = launcher.report(before=NO_ADMIN)
    assert report["exe"].startswith("/memfd:ocirt")
    assert report["seals"] & SEALED == SEALED


@pytest.mark.parametrize("before", [NOBODY, NO_ADMIN], ids=["rootless", "no admin"])
def test_memfd_noexec_1_allows_a_copy_that_says_so(
    own: Installed, memfd_noexec: Callable[[int], list[str]], before: list[str]
) -> None:
    report = own.report(before=[*memfd_noexec(1), *before])
    assert report["exe"].startswith("/memfd:ocirt")


@pytest.mark.parametrize("before", [NOBODY, NO_ADMIN], ids=["rootless", "no admin"])
def test_memfd_noexec_2_leads_to_a_file_without_a_name(
    own: Installed, memfd_noexec: Callable[[int], list[str]], before: list[str]
) -> None:
    """A copy of its own, so what a container writes there it writes to nobody else."""
    report = own.report(before=[*memfd_noexec(2), *before])
    assert report["exe"].endswith("(deleted)")
    assert not report["exe"].startswith(("/memfd:", str(own.home)))


@pytest.mark.parametrize("value", [1, 2])
def test_memfd_noexec_does_not_matter_to_root(launcher: Installed, memfd_noexec: Callable[[int], list[str]], value: int) -> None:
    assert launcher.report(before=memfd_noexec(value))["read_only"]


def inject(*faults: str) -> list[str]:
    """Let system calls of the launcher fail."""
    if shutil.which("strace") is None:
        pytest.fail("the tests need strace: apt-get install strace", pytrace=False)
    return ["strace", "-o", "/dev/null", *(word for fault in faults for word in ("-e", f"inject={fault}"))]


@pytest.mark.parametrize("call", ["open_tree", "mount_setattr"])
@pytest.mark.parametrize("error", ["EPERM", "ENOSYS", "EINVAL"])
def test_no_clone_to_be_had(launcher: Installed, call: str, error: str) -> None:
    """Old kernels, containers with a seccomp profile, fresh user namespaces."""
    report = launcher.report(before=inject(f"{call}:error={error}"))
    assert report["exe"].startswith("/memfd:ocirt")
    assert protected(report)


def test_kernel_without_mfd_exec(launcher: Installed) -> None:
    report = launcher.report(before=inject("open_tree:error=ENOSYS", "memfd_create:error=EINVAL:when=1"))
    assert report["exe"].startswith("/memfd:ocirt")


@pytest.mark.parametrize(
    ("faults", "text"),
    [
        (["open_tree:error=EACCES"], "cannot clone {python}: EACCES"),
        (["open_tree:error=EIO"], "cannot clone {python}: failed"),
        (["execveat:error=EACCES"], "cannot execute {python}: EACCES"),
        (["open_tree:error=EPERM", "sendfile:error=EIO"], "cannot copy {python}: failed"),
    ],
)
def test_other_errors_are_not_taken_for_a_missing_feature(launcher: Installed, faults: list[str], text: str) -> None:
    done = launcher.start(before=inject(*faults))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"ocirt: {text.format(python=PYTHON)}")
    assert done.stderr.count("\n") == 1


def test_no_way_to_copy(own: Installed) -> None:
    faults = ["open_tree:error=EPERM", "memfd_create:error=EACCES", "openat:error=EACCES:when=5+"]
    done = own.start(before=inject(*faults))
    assert done.returncode == 1
    assert "needs memfd_create, or a /tmp to write to" in done.stderr


# How it finds the interpreter


@pytest.fixture
def moved(launcher: Installed, tmp_path: Path) -> Iterator[Installed]:
    """The launcher, with the companion restored after the test."""
    text = launcher.companion.read_text()
    yield launcher
    launcher.companion.unlink(missing_ok=True)
    launcher.companion.write_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "#!{python}\n",
        "#!{python}",
        "#!{python}\n# a comment\nprint()\n",
        "#!{python} -E\n# pipx\n",
        "#!/bin/sh\n'''exec' '{python}' \"$0\" \"$@\"\n' '''\nprint()\n",
        "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'{relative}' \"$0\" \"$@\"\n' '''\n",
        "#!{relative}\n",
    ],
    ids=["plain", "no newline", "script", "pipx", "uv: long path", "uv: relocatable", "relative"],
)
def test_companion(moved: Installed, text: str) -> None:
    relative = os.path.relpath(PYTHON, moved.companion.parent)
    moved.companion.write_text(text.format(python=PYTHON, relative=relative))
    assert os.path.realpath(moved.report()["executable"]) == PYTHON


def test_companion_names_a_path_with_a_space(moved: Installed, tmp_path: Path) -> None:
    link = tmp_path / "a b"
    link.symlink_to(PYTHON)
    moved.name_python(str(link))
    assert moved.report()["executable"] == PYTHON


def test_without_companion_the_python_beside_it_is_taken(moved: Installed) -> None:
    moved.companion.unlink()
    link = moved.companion.with_name("python3")
    link.symlink_to(PYTHON)
    try:
        assert moved.report()["executable"] == PYTHON
    finally:
        link.unlink()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#!/nowhere/python3\n", "cannot use its Python, /nowhere/python3: ENOENT (install ocirt again"),
        ("#!/bin/sh\nexit\n", "cannot execute"),
        ("python\n", "its first line must name a Python: install ocirt again"),
        ("#!\n", "its first line must name a Python: install ocirt again"),
        ("#!/etc/passwd\n", "cannot execute /etc/passwd: failed"),
        ("#!" + "/x" * 5000 + "\n", "cannot use its Python"),
    ],
)
def test_bad_companion(moved: Installed, text: str, message: str) -> None:
    """One line that says what to do, exit code 1. (The shell itself is no Python: it does not know `-I`.)"""
    moved.companion.write_text(text)
    done = moved.start()
    if text.startswith("#!/bin/sh"):
        assert done.returncode != 7
        return
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_any_python(moved: Installed) -> None:
    moved.companion.unlink()
    done = moved.start()
    assert done.returncode == 1
    assert f"cannot use its Python, {moved.home}/bin/python3: ENOENT" in done.stderr


def test_path_is_never_searched(moved: Installed, tmp_path: Path) -> None:
    moved.companion.unlink()
    (tmp_path / "python3").symlink_to(PYTHON)
    assert moved.start(env={"PATH": f"{tmp_path}:/usr/bin:/bin"}).returncode == 1


def test_package_is_missing(place: Path) -> None:
    lonely = Installed(place / "lonely")
    shutil.rmtree(lonely.home / "ocirt")
    done = lonely.start()
    assert done.returncode == 1
    assert done.stderr.startswith("ocirt: cannot find its package in any of ")


def test_home_line_leads_to_the_package(moved: Installed, place: Path) -> None:
    """What an editable install writes."""
    away = place / "away"
    away.mkdir()
    shutil.copy(moved.command, away / "ocirt")
    (away / "ocirt-python").write_text(f'#!{PYTHON}\n# home: {moved.home}\n"""x"""\n')
    assert moved.report(command=away / "ocirt")["path"][-1] == str(moved.home)


def test_without_proc(launcher: Installed) -> None:
    script = 'umount -l /proc && exec "$@"'
    done = launcher.start(before=["unshare", "--mount", "--", "sh", "-c", script, "sh"])
    assert done.returncode == 1
    assert done.stderr == "ocirt: cannot find itself by /proc/self/exe: ENOENT (is /proc mounted?)\n"


# Interpreters that find their libraries beside themselves


@pytest.fixture(scope="module")
def relocatable(place: Path) -> Path:
    """A Python whose library is found by $ORIGIN, as in conda and python-build-standalone: made from Debian's."""
    version = subprocess.run(
        [PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True, check=True
    ).stdout.strip()
    library = next(Path("/usr/lib").glob(f"*/libpython{version}.so.1.0"), None)
    header = Path(f"/usr/include/python{version}/Python.h")
    if library is None or not header.exists():
        pytest.fail(f"the tests need libpython{version}-dev (apt-get install)", pytrace=False)
    home = place / "relocatable"
    (home / "bin").mkdir(parents=True)
    (home / "lib").mkdir()
    shutil.copy(library, home / "lib")
    (home / "lib" / f"python{version}").symlink_to(f"{PREFIX}/lib/python{version}")
    source = home / "main.c"
    source.write_text("#include <Python.h>\nint main(int argc, char **argv) { return Py_BytesMain(argc, argv); }\n")
    python = home / "bin" / f"python{version}"
    libraries = [str(home / "lib" / library.name), "-Wl,-rpath,$ORIGIN/../lib"]
    subprocess.run(["cc", str(source), f"-I{header.parent}", "-o", str(python), *libraries], check=True)
    subprocess.run([python, "-I", "-S", "-c", "pass"], check=True)
    return python


@pytest.mark.parametrize("before", [[], USER_NAMESPACE, NOBODY, NO_ADMIN], ids=["root", "userns", "rootless", "no admin"])
@pytest.mark.parametrize("link", [False, True], ids=["direct", "venv"])
def test_relocatable_python(relocatable: Path, place: Path, moved: Installed, before: list[str], link: bool) -> None:
    """It runs by way of its dynamic loader, which is then what /proc/self/exe names, and what is protected."""
    python = relocatable
    if link:
        python = place / "linked"
        python.unlink(missing_ok=True)
        python.symlink_to(relocatable)
    moved.name_python(str(python))
    report = moved.report(before=before)
    assert report["executable"] == str(relocatable)
    assert report["prefix"] == str(relocatable.parents[1])
    assert "LD_LIBRARY_PATH" not in report["environ"]
    assert protected(report)
    assert set(report["fds"]) == {"0", "1", "2"}
