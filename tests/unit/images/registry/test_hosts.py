"""Where a repository is asked for: certs.d, registries.conf, and neither."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocirt_images.errors import Error
from ocirt_images.reference import Reference
from ocirt_images.registry.hosts import ALL, Host, Hosts, loopback
from ocirt_images.registry.registriesconf import Files
from ocirt_images.registry.tls import Tls

R = "r.example/team/app"


def lookup(hosts: Hosts, text: str = R, **more: bool) -> list[Host]:
    return hosts.lookup(Reference.parse(text, short=True), **more)


def bases(hosts: Hosts, text: str = R, **more: bool) -> list[str]:
    return [one.base for one in lookup(hosts, text, **more)]


def folder(root: Path, name: str, text: str | None = None, *files: str) -> Path:
    where = root / name
    where.mkdir(parents=True, exist_ok=True)
    if text is not None:
        (where / "hosts.toml").write_text(text)
    for one in files:
        (where / one).write_text("")
    return where


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    """Looks into `certs.d` and `containers` below tmp_path."""
    return Hosts(folders=(tmp_path / "certs.d",), registries=Files({"HOME": str(tmp_path)}, etc=tmp_path / "containers"))


def rules(root: Path, text: str, name: str = "registries.conf") -> Path:
    path = root / "containers" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("reference", "base", "account"),
    [
        (R, "https://r.example/v2", R),
        ("r.example:5000/a", "https://r.example:5000/v2", "r.example:5000/a"),
        ("busybox", "https://registry-1.docker.io/v2", "docker.io/library/busybox"),
        ("localhost/a", "http://localhost/v2", "localhost/a"),
        ("localhost:5000/a", "http://localhost:5000/v2", "localhost:5000/a"),
        ("127.0.0.9:5000/a", "http://127.0.0.9:5000/v2", "127.0.0.9:5000/a"),
        ("[::1]:5000/a", "http://[::1]:5000/v2", "[::1]:5000/a"),
        ("127.0.0.1:443/a", "https://127.0.0.1:443/v2", "127.0.0.1:443/a"),
        ("10.0.0.1:5000/a", "https://10.0.0.1:5000/v2", "10.0.0.1:5000/a"),
    ],
)
def test_without_files(hosts: Hosts, reference: str, base: str, account: str) -> None:
    (found,) = lookup(hosts, reference)
    assert (found.base, found.account, found.namespace, found.capabilities) == (base, account, "", ALL)


def test_less_security_when_asked_for() -> None:
    assert bases(Hosts(plain_http=True)) == ["http://r.example/v2"]
    loose, plain = lookup(Hosts(), insecure=True)
    assert (loose.base, loose.tls.verify, plain.base) == ("https://r.example/v2", False, "http://r.example/v2")
    assert bases(Hosts(), "localhost/a", insecure=True) == ["http://localhost/v2"]


def test_loopback() -> None:
    assert [loopback(one) for one in ("localhost", "a.localhost:1", "127.8.8.8", "[::1]:5")] == [True] * 4
    assert [loopback(one) for one in ("localhost.example", "128.0.0.1", "127.0.0.1.example", "[::2]")] == [False] * 4


def test_urls() -> None:
    host = Host(base="https://m.example/p/v2", repository="a/b", account="", namespace="docker.io")
    assert host.url("tags/list", [("n", "5")]) == "https://m.example/p/v2/a/b/tags/list?n=5&ns=docker.io"
    assert Host(base="https://m.example/v2", repository="a", account="").url("blobs/x") == "https://m.example/v2/a/blobs/x"


WHOLE = """
server = "https://upstream.example"
ca = "/etc/upstream.crt"

[host."https://mirror.example:8443"]
  capabilities = ["pull", "Resolve"]
  ca = ["a.crt", "/abs/b.crt"]
  client = [["c.cert", "c.key"], ["both.pem"]]
  skip_verify = true
  dial_timeout = "1m2.5s"
  [host."https://mirror.example:8443".header]
    x-team = "a"
    x-list = ["b", "c"]

[host."http://plain.example/prefix"]
  client = "one.pem"

[host."https://odd.example/api/images"]
  override_path = true
  capabilities = ["push", "referrers"]

[host."bare.example/v2/"]
"""


def test_hosts_toml(tmp_path: Path, hosts: Hosts) -> None:
    where = folder(tmp_path / "certs.d", "r.example", WHOLE)
    mirror, plain, odd, bare, upstream = lookup(hosts)
    assert mirror.base == "https://mirror.example:8443/v2"
    assert mirror.capabilities == {"pull", "resolve"}
    assert mirror.tls == Tls(
        ca=(where / "a.crt", Path("/abs/b.crt")),
        client=((where / "c.cert", where / "c.key"), (where / "both.pem", None)),
        verify=False,
    )
    assert mirror.dial_timeout == 62.5
    assert mirror.headers == (("x-team", "a"), ("x-list", "b, c"))
    assert (mirror.namespace, mirror.account) == ("r.example", "mirror.example:8443/team/app")
    assert (mirror.source, mirror.name) == (str(where / "hosts.toml"), "mirror.example:8443")
    assert (plain.base, plain.account) == ("http://plain.example/prefix/v2", "plain.example/prefix/team/app")
    assert plain.tls.client == ((where / "one.pem", None),)
    assert (odd.base, odd.capabilities) == ("https://odd.example/api/images", frozenset(("push",)))
    assert bare.base == "https://bare.example/v2"
    assert (upstream.base, upstream.account, upstream.namespace) == (
        "https://upstream.example/v2",
        "upstream.example/team/app",
        "r.example",
    )
    assert upstream.tls.ca == (Path("/etc/upstream.crt"),)


def test_the_registry_itself_comes_last(tmp_path: Path, hosts: Hosts) -> None:
    folder(tmp_path / "certs.d", "docker.io", '[host."https://m.example"]\n[host."https://registry-1.docker.io"]\n')
    found = lookup(hosts, "busybox")
    assert [(one.base, one.namespace, one.account) for one in found] == [
        ("https://m.example/v2", "docker.io", "m.example/library/busybox"),
        ("https://registry-1.docker.io/v2", "", "docker.io/library/busybox"),
        ("https://registry-1.docker.io/v2", "", "docker.io/library/busybox"),
    ]


@pytest.mark.parametrize("name", ["r.example_5000_", "r.example:5000", "_default"])
def test_names_of_folders(tmp_path: Path, hosts: Hosts, name: str) -> None:
    folder(tmp_path / "certs.d", name, 'server = "https://found.example"')
    assert bases(hosts, "r.example:5000/a") == ["https://found.example/v2"]


def test_the_folder_of_a_host_comes_before_default(tmp_path: Path, hosts: Hosts) -> None:
    folder(tmp_path / "certs.d", "_default", '[host."https://any.example"]')
    assert bases(hosts) == ["https://any.example/v2", "https://r.example/v2"]
    folder(tmp_path / "certs.d", "r.example")
    assert bases(hosts) == ["https://r.example/v2"]


def test_files_are_read_anew(tmp_path: Path, hosts: Hosts) -> None:
    assert bases(hosts) == ["https://r.example/v2"]
    folder(tmp_path / "certs.d", "r.example", 'server = "https://one.example"')
    rules(tmp_path, '[[registry]]\nlocation = "q.example"\n[[registry.mirror]]\nlocation = "m.example"')
    assert bases(hosts) == ["https://one.example/v2"]
    assert bases(hosts, "q.example/a") == ["https://m.example/v2", "https://q.example/v2"]
    folder(tmp_path / "certs.d", "r.example", 'server = "https://two.example"')
    rules(tmp_path, '[[registry]]\nlocation = "q.example"\nblocked = true')
    assert bases(hosts) == ["https://two.example/v2"]
    with pytest.raises(Error) as caught:
        bases(hosts, "q.example/a")
    assert caught.value.code == "untrusted"


def test_certificates_as_docker_has_them(tmp_path: Path, hosts: Hosts) -> None:
    files = ("ca.crt", "other.crt", "me.cert", "me.key", "bundle.cert", "lost.key", "README")
    where = folder(tmp_path / "certs.d", "localhost:5000", None, *files)
    (found,) = lookup(hosts, "localhost:5000/a")
    assert found.tls == Tls(
        ca=(where / "ca.crt", where / "other.crt"),
        client=((where / "bundle.cert", None), (where / "me.cert", where / "me.key")),
    )
    assert found.base == "https://localhost:5000/v2"  # there would be no use for them otherwise


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server = ", "not TOML"),
        ("server = 1", "server: not a string"),
        ('server = "ftp://a"', "server: 'ftp://a' is not an http or https URL"),
        ('host = "x"', "host: not a table"),
        ('[host]\na = "x"', "host.a: not a table"),
        ('[host."ftp://a"]', "'ftp://a' is not an http or https URL"),
        ('[host."https://a:99999"]', "'https://a:99999' is not a URL"),
        ('[host."https://bob:secret@a"]', "a: a host's URL has neither user nor query"),
        ('[host."https://a"]\ncapabilities = "pull"', 'host."https://a".capabilities: not a list of strings'),
        ('[host."https://a"]\ncapabilities = ["pul"]', "host.\"https://a\".capabilities: 'pul' is none (pull, resolve and push)"),
        ('[host."https://a"]\nskip-verify = true', 'host."https://a".skip-verify: no such key (is skip_verify meant?)'),
        ('skip_verify = "yes"', "skip_verify: neither true nor false"),
        ("[host.a]\nca = [1]", "host.a.ca: neither a path nor a list of paths"),
        ("[host.a]\nclient = [[]]", "host.a.client: neither a path nor a list of pairs"),
        ('[host.a]\nclient = [["a", "b", "c"]]', "host.a.client: neither a path nor a list of pairs"),
        ("[host.a]\nclient = 5", "host.a.client: neither a path nor a list of pairs"),
        ('[host.a]\ndial_timeout = "5 s"', "host.a.dial_timeout: '5 s' is no duration (such as 5s or 1m30s)"),
        ("[host.a]\ndial_timeout = 5", "host.a.dial_timeout: not a string"),
        ("[host.a.header]\nx = 1", "host.a.header.x: neither a string nor a list of strings"),
        ('[host.a.header]\nx = "a\\r\\nb"', "host.a.header.x: not a header"),
    ],
)
def test_bad_hosts_toml(tmp_path: Path, hosts: Hosts, text: str, message: str) -> None:
    where = folder(tmp_path / "certs.d", "r.example", text)
    with pytest.raises(Error) as caught:
        lookup(hosts)
    assert caught.value.code == "invalid"
    assert str(caught.value).startswith(f"{where}/hosts.toml: {message}")
    assert "secret" not in str(caught.value)


def test_keys_that_may_come(tmp_path: Path, hosts: Hosts) -> None:
    folder(tmp_path / "certs.d", "r.example", '[host."https://a"]\nfrobnicate = true')
    assert bases(hosts) == ["https://a/v2", "https://r.example/v2"]


def test_which_folders(tmp_path: Path) -> None:
    environ = {"OCIRT_CERTS_D": f"{tmp_path}/one:{tmp_path}/two", "HOME": str(tmp_path)}
    environ["CONTAINERS_REGISTRIES_CONF"] = str(tmp_path / "none.conf")
    folder(tmp_path / "two", "r.example", 'server = "https://two.example"')
    assert bases(Hosts.load(environ)) == ["https://two.example/v2"]
    folder(tmp_path / "one", "r.example", 'server = "https://one.example"')
    assert bases(Hosts.load(environ)) == ["https://one.example/v2"]


# registries.conf

MIRRORED = """
[[registry]]
prefix = "r.example/team"
location = "inner.example/moved"
{more}
[[registry.mirror]]
location = "one.example/m"
[[registry.mirror]]
location = "two.example"
insecure = true
pull-from-mirror = "{pulls}"
"""
BY_DIGEST = "mirror-by-digest-only = true"
D = "@sha256:" + "a" * 64


def places(found: list[Host]) -> list[str]:
    return [f"{one.base}/{one.repository}" for one in found if "pull" in one.capabilities]


def test_mirrors_and_moves(tmp_path: Path, hosts: Hosts) -> None:
    rules(tmp_path, MIRRORED.format(more="", pulls="digest-only"))
    found = lookup(hosts, R + D)
    assert [(one.base, one.repository, one.account) for one in found if "pull" in one.capabilities] == [
        ("https://one.example/v2", "m/app", "one.example/m/app"),
        ("https://two.example/v2", "app", "two.example/app"),
        ("http://two.example/v2", "app", "two.example/app"),
        ("https://inner.example/v2", "moved/app", "inner.example/moved/app"),
    ]
    assert [one.tls.verify for one in found] == [True, False, False, True, True]
    # Pushes go to the registry itself.
    assert [(one.base, one.repository) for one in found if "push" in one.capabilities] == [("https://r.example/v2", "team/app")]


@pytest.mark.parametrize(
    ("more", "pulls", "by_tag", "by_digest"),
    [
        ("", "all", 4, 4),
        ("", "digest-only", 2, 4),
        ("", "tag-only", 4, 2),
        (BY_DIGEST, "digest-only", 1, 4),
    ],
)
def test_mirrors_for_tags_or_digests(tmp_path: Path, hosts: Hosts, more: str, pulls: str, by_tag: int, by_digest: int) -> None:
    rules(tmp_path, MIRRORED.format(more=more, pulls=pulls))
    assert [len(places(lookup(hosts, text))) for text in (R, R + D)] == [by_tag, by_digest]


@pytest.mark.parametrize(
    ("prefixes", "reference", "chosen"),
    [
        (["r.example"], "r.example/a", "r.example"),
        (["r.example"], "r.example:5000/a", None),
        (["r.example:5000"], "r.example:5000/a", "r.example:5000"),
        (["r.example", "r.example/a"], "r.example/a/b", "r.example/a"),
        (["r.example/a"], "r.example/ab", None),
        (["r.example/a/b"], "r.example/a", None),
        (["*.example"], "r.example/a", "*.example"),
        (["*.example"], "deep.r.example:5000/a", "*.example"),
        (["*.example"], "example/a", None),
        (["*.example", "r.example"], "r.example/a", "r.example"),
        (["docker.io/library"], "busybox", "docker.io/library"),
        (["r.example/a:old"], "r.example/a:old", "r.example/a:old"),
        (["r.example/a:old"], "r.example/a:older", None),
    ],
)
def test_the_longest_prefix_decides(
    tmp_path: Path, hosts: Hosts, prefixes: list[str], reference: str, chosen: str | None
) -> None:
    rules(tmp_path, "".join(f'[[registry]]\nprefix = "{one}"\nblocked = true\n' for one in prefixes))
    rule = hosts.registries().rule(Reference.parse(reference, short=True))
    assert (rule.prefix if rule else None) == chosen


def test_a_pattern_moves_nothing_by_itself(tmp_path: Path, hosts: Hosts) -> None:
    rules(tmp_path, '[[registry]]\nprefix = "*.example"\ninsecure = true\n[[registry.mirror]]\nlocation = "m.test/x"')
    assert places(lookup(hosts)) == [
        "https://m.test/v2/x/team/app",
        "https://r.example/v2/team/app",
        "http://r.example/v2/team/app",
    ]


def test_who_decides(tmp_path: Path, hosts: Hosts) -> None:
    rules(tmp_path, '[[registry]]\nlocation = "r.example"\n[[registry.mirror]]\nlocation = "rule.example"')
    folder(tmp_path / "certs.d", "_default", '[host."https://default.example"]')
    assert bases(hosts) == ["https://rule.example/v2", "https://r.example/v2"]
    assert bases(hosts, "q.example/a") == ["https://default.example/v2", "https://q.example/v2"]
    folder(tmp_path / "certs.d", "r.example", '[host."https://folder.example"]')
    assert bases(hosts) == ["https://folder.example/v2", "https://r.example/v2"]


def test_what_is_blocked_is_blocked_in_any_case(tmp_path: Path, hosts: Hosts) -> None:
    path = rules(tmp_path, '[[registry]]\nprefix = "r.example/team"\nblocked = true')
    folder(tmp_path / "certs.d", "r.example", 'server = "https://upstream.example"')
    with pytest.raises(Error) as caught:
        lookup(hosts)
    assert (caught.value.code, str(caught.value)) == ("untrusted", f"{R}:latest: {path} blocks r.example/team")
    assert bases(hosts, "r.example/other") == ["https://upstream.example/v2"]


def test_certificates_of_a_mirror(tmp_path: Path, hosts: Hosts) -> None:
    rules(tmp_path, '[[registry]]\nlocation = "r.example"\n[[registry.mirror]]\nlocation = "m.example:5000"')
    where = folder(tmp_path / "certs.d", "m.example:5000", None, "ca.crt")
    assert lookup(hosts)[0].tls.ca == (where / "ca.crt",)


def test_drop_ins(tmp_path: Path, hosts: Hosts) -> None:
    rules(
        tmp_path,
        'unqualified-search-registries = ["a.example"]\n[aliases]\napp = "r.example/team/app"\ngone = "r.example/gone"\n'
        '[[registry]]\nlocation = "r.example"\nblocked = true',
    )
    rules(
        tmp_path, 'unqualified-search-registries = ["b.example", "docker.io"]\n[aliases]\ngone = ""', "registries.conf.d/10.conf"
    )
    rules(tmp_path, 'short-name-mode = "enforcing"\n[[registry]]\nlocation = "r.example"', "registries.conf.d/20.conf")
    rules(tmp_path, "not TOML", "registries.conf.d/30.conf.bak")
    found = hosts.registries()
    assert (found.search, found.mode, dict(found.aliases)) == (("b.example", "docker.io"), "enforcing", {"app": R})
    assert [(one.prefix, one.blocked) for one in found.rules] == [("r.example", False)]
    assert [str(one) for one in found.expand(f"app:1{D}")] == [f"{R}:1{D}"]
    assert [str(one) for one in found.expand("box")] == ["b.example/box:latest", "docker.io/library/box:latest"]


def test_a_users_file_is_in_place_of_the_machines(tmp_path: Path, hosts: Hosts) -> None:
    rules(tmp_path, '[[registry]]\nlocation = "r.example"\nblocked = true')
    mine = tmp_path / ".config/containers/registries.conf"
    mine.parent.mkdir(parents=True)
    mine.write_text('unqualified-search-registries = ["mine.example"]')
    assert hosts.registries().search == ("mine.example",)
    assert bases(hosts) == ["https://r.example/v2"]


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("[[registry]", "invalid", "not TOML"),
        ('[registries.search]\nregistries = ["a"]', "unsupported", "registries.conf of version 1"),
        ('registry = "x"', "invalid", "registry: not a list of tables ([[registry]])"),
        ("[[registry]]\nlocation = 1", "invalid", "registry[0].location: not a string"),
        ("[[registry]]", "invalid", "registry[0].location: missing"),
        ('[[registry]]\nlocation = "https://a"', "invalid", "registry[0].location: 'https://a' is no location"),
        ('[[registry]]\nprefix = "a.*.b"', "invalid", "registry[0].prefix: 'a.*.b' is no pattern (*.example.com)"),
        ('[[registry]]\nprefix = "*.b/c"', "invalid", "registry[0].prefix: '*.b/c' is no pattern"),
        ('[[registry]]\nlocation = "a"\nblocked = 1', "invalid", "registry[0].blocked: neither true nor false"),
        ('[[registry]]\nlocation = "a"\nblock = true', "invalid", "registry[0].block: no such key (is blocked meant?)"),
        ('[[registry]]\nlocation = "a"\nmirror = 1', "invalid", "registry[0].mirror: not a list of tables"),
        ('[[registry]]\nlocation = "a"\n[[registry.mirror]]', "invalid", "registry[0].mirror[0].location: missing"),
        (
            MIRRORED.format(more="", pulls="x"),
            "invalid",
            "registry[0].mirror[1].pull-from-mirror: 'x' is none of all, digest-only",
        ),
        (
            MIRRORED.format(more="mirror-by-digest-only = true", pulls="all"),
            "invalid",
            "registry[0].mirror[1].pull-from-mirror: all con",
        ),
        ('short-name-mode = "x"', "invalid", "short-name-mode: 'x' is none of enforcing, permissive, disabled"),
        ('unqualified-search-registries = "a"', "invalid", "unqualified-search-registries: not a list of strings"),
        ("[aliases]\na = 1", "invalid", "aliases.a: not a string"),
    ],
)
def test_bad_registries_conf(tmp_path: Path, hosts: Hosts, text: str, code: str, message: str) -> None:
    path = rules(tmp_path, text)
    with pytest.raises(Error) as caught:
        lookup(hosts)
    assert caught.value.code == code
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_location_without_a_repository(tmp_path: Path, hosts: Hosts) -> None:
    rules(tmp_path, '[[registry]]\nprefix = "r.example/team/app"\nlocation = "q.example"')
    with pytest.raises(Error) as caught:
        lookup(hosts)
    assert "leaves no repository of r.example/team/app" in str(caught.value)


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """Root may read everything: so a directory stands where the file should be."""
    where = tmp_path / "certs.d/r.example/hosts.toml"
    where.mkdir(parents=True)
    with pytest.raises(OSError, match=os.strerror(21)) as caught:
        lookup(Hosts(folders=(tmp_path / "certs.d",)))
    assert str(caught.value.filename) == str(where)
