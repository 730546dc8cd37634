"""The packages that scripts/package makes install, load and leave again.

Without --long they hold the module under test, and there is no wheel. With --long they are those of a
release: one module for glibc 2.17 and newer in all of them.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from machine import Machine
from script import ROOT, module
from server import START_SECONDS, eventually, free_port
from servers import installed

# The first test makes the packages, and what makes them may have to be installed before.
pytestmark = pytest.mark.timeout(1800)

LONG = os.environ.get("REDIS_LB_LONG") == "1"
LIBRARY = Path("/usr/lib/redis/modules/libredis_lb.so")
DOWNLOADED = Path("/tmp/redis-lb.deb")
README = (ROOT / "src" / "clients" / "python" / "README.md").read_text()
LICENSES = "LICENSE", "LICENSE-rust-library.html"
# Where apt and dpkg keep their own notes.
NOTES = [Path(path) for path in ("/var/lib/dpkg", "/var/lib/apt", "/var/cache", "/var/log")]


def package(*kinds, **more):
    """Run scripts/package to its end."""
    environment = {name: value for name, value in os.environ.items() if name != "REDIS_LB_MODULE"}
    command = ["nice", ROOT / "scripts" / "package", *kinds]
    return subprocess.run(command, env=environment | more, capture_output=True, text=True)


@pytest.fixture(scope="session")
def packages():
    """The paths of the packages by their suffixes."""
    if LONG:
        made = package()
    else:
        made = package("deb", "tarball", REDIS_LB_MODULE=str(module()))
    assert made.returncode == 0, made.stderr
    return {path.suffix: path for path in map(Path, made.stdout.split())}


@pytest.fixture(scope="session")
def bare_debian():
    """The files of a Debian with redis-server, and without all that nobody needs to run it."""
    folder = ROOT / "target" / "debian"
    if not folder.exists():
        new = folder.with_name("debian.new")
        shutil.rmtree(new, ignore_errors=True)
        make = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=redis-server"]
        subprocess.run([*make, "bookworm", new], check=True)
        new.rename(folder)
    return folder


@pytest.fixture(params=["this one", pytest.param("a bare Debian", marks=pytest.mark.long)])
def machine(tmp_path, request):
    """Another machine with Debian's redis-server."""
    if os.geteuid() != 0:
        pytest.skip("only root can install a package into an overlay of a machine")
    files = Path("/")
    if request.param == "a bare Debian":
        files = request.getfixturevalue("bare_debian")
    elif installed().path != Path("/usr/bin/redis-server") or not Path("/etc/redis/redis.conf").exists():
        pytest.skip("the installed server is not Debian's")
    try:
        machine = Machine(tmp_path, files)
    except OSError as error:
        pytest.skip(f"no overlay of a machine: {error}")
    if request.param == "a bare Debian":
        assert machine.run("sh", "-c", "command -v as cc clang gcc cargo python3 || echo none") == "none\n"
    yield machine
    machine.close()


def install(machine, deb):
    """As a user does who has downloaded it."""
    machine.run("cp", "/dev/stdin", str(DOWNLOADED), typed=deb.read_bytes())
    machine.run("apt-get", "install", "--yes", str(DOWNLOADED))


def line_of(readme):
    """The one line of configuration that a README tells."""
    (line,) = re.findall(r"^ +(loadmodule .*)$", readme, re.MULTILINE)
    return line


def answering(machine, port):
    """A client of the server on that machine, once it answers."""
    server = machine.start_server(port)
    client = redis.Redis(port=port, decode_responses=True, retry=Retry(NoBackoff(), 0))

    def answers():
        assert server.poll() is None, (
            server.stdout.read() + machine.run("tail", "/var/log/redis/redis-server.log").encode()
        )
        try:
            return client.ping()
        except redis.ConnectionError:
            return False

    eventually(answers, START_SECONDS)
    return server, client


def test_debians_server_loads_the_installed_module_by_one_line(machine, packages):
    """Under the restrictions of Debian's unit, and again after CONFIG REWRITE, which Sentinel asks for."""
    install(machine, packages[".deb"])
    line = line_of(machine.run("cat", "/usr/share/doc/redis-lb/README.Debian"))
    assert line == f"loadmodule {LIBRARY}"
    machine.run("sh", "-c", f"echo '{line}' >>/etc/redis/redis.conf")
    port = free_port()
    for _ in "first", "rewritten":
        server, client = answering(machine, port)
        client.delete("web")
        client.execute_command("LB.ADD web a 2 b 1")
        assert client.execute_command("LB.PICK web COUNT 3") == ["a", "b", "a"]
        assert client.config_rewrite()
        client.shutdown(nosave=True)
        server.wait(START_SECONDS)
        assert machine.run("cat", "/etc/redis/redis.conf").count("\nloadmodule") == 1


def test_the_same_module_in_another_place_is_refused(machine, packages):
    """So the test above has the restrictions that it claims."""
    install(machine, packages[".deb"])
    machine.run("install", "-m", "755", str(LIBRARY), "/opt/libredis_lb.so")
    machine.run("sh", "-c", "echo 'loadmodule /opt/libredis_lb.so' >>/etc/redis/redis.conf")
    server = machine.start_server(free_port())
    assert server.wait(START_SECONDS) != 0
    assert "failed to map segment" in machine.run("tail", "/var/log/redis/redis-server.log")


def test_nothing_of_the_debian_package_stays(machine, packages):
    """Once it is removed. There is nothing left to purge."""
    install(machine, packages[".deb"])
    files = {Path(line) for line in machine.run("dpkg", "--listfiles", "redis-lb").splitlines()}
    assert LIBRARY in machine.changed() & files
    machine.run("apt-get", "remove", "--yes", "redis-lb")
    assert {path for path in machine.changed() if not {*path.parents} & {*NOTES}} == {DOWNLOADED}
    never_there = {path for path in files if not (machine.files / path.relative_to("/")).exists()}
    assert LIBRARY.parent in never_there
    machine.run("sh", "-c", 'for path; do test ! -e "$path" || exit 1; done', "sh", *map(str, never_there))
    assert "redis-lb" not in machine.run("dpkg", "--get-selections").split()


def test_the_debian_package_needs_no_compiler(packages):
    """Only the C library; nothing of it runs when it is installed."""
    field = ["dpkg-deb", "--field", packages[".deb"]]
    needs = subprocess.run([*field, "Depends", "Pre-Depends"], stdout=subprocess.PIPE, text=True, check=True)
    newest = r"2\.17" if LONG else r"2\.\d+"
    assert re.fullmatch(rf"Depends: libc6 \(>= {newest}\)\n", needs.stdout)
    listing = subprocess.run(
        ["dpkg-deb", "--ctrl-tarfile", packages[".deb"]], stdout=subprocess.PIPE, check=True
    ).stdout
    names = subprocess.run(
        ["tar", "--list"], input=listing, stdout=subprocess.PIPE, check=True
    ).stdout.split()
    assert {Path(name.decode()).name for name in names} - {""} == {"control"}


def test_the_checksums_are_those_of_all_packages(packages):
    folder = packages[".gz"].parent
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    named = {line.split()[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert named | {"SHA256SUMS"} == {path.name for path in folder.iterdir()}


@pytest.mark.once("it holds the module that all servers were tested with")
def test_the_tarball_has_the_module_and_says_how_to_load_it(packages, tmp_path, new_server):
    with tarfile.open(packages[".gz"]) as archive:
        assert {member.mode for member in archive if member.name.endswith(".so")} == {0o755}
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    names = {path.name for path in folder.iterdir()}
    assert names - {*LICENSES} == {"libredis_lb.so", "CHANGELOG.md", "README"}
    readme = (folder / "README").read_text()
    assert line_of(readme) == f"loadmodule {LIBRARY}" and str(LIBRARY) in readme.partition("loadmodule")[0]
    client = new_server(module=folder / "libredis_lb.so").client()
    for command in re.findall(r"^ +redis-cli (.*)$", readme, re.MULTILINE):
        answer = client.execute_command(command)
    assert answer == "10.0.0.1:80"


def files_in(package):
    """The contents of its files, by their last names."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as archive:
            return {Path(name).name: archive.read(name) for name in archive.namelist()}
    command = (
        ["dpkg-deb", "--fsys-tarfile"] if package.suffix == ".deb" else ["gzip", "--decompress", "--stdout"]
    )
    done = subprocess.run([*command, package], stdout=subprocess.PIPE, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        return {Path(file.name).name: archive.extractfile(file).read() for file in archive if file.isfile()}


@pytest.mark.parametrize("suffix", [".deb", ".gz", pytest.param(".whl", marks=pytest.mark.long)])
def test_a_package_has_the_licenses_of_all_that_is_in_it(packages, suffix):
    """Those of redis-lb, of the crates, and of Rust's own library."""
    tree = ["cargo", "tree", "--locked", "--edges", "normal,no-proc-macro", "--no-dedupe", "--prefix", "none"]
    told = subprocess.run([*tree, "--depth", "1"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    files = files_in(packages[suffix])
    ours = files["copyright" if suffix == ".deb" else "LICENSE"].decode()
    assert ours.startswith("redis-lb\n\n" + (ROOT / "LICENSE").read_text())
    crates = {" ".join(line.split()[:2]).replace(" v", " ") for line in told.stdout.splitlines()}
    listed = {
        crate
        for heading in re.findall(r"^-{4}\n\n(.*)$", ours, re.MULTILINE)
        for crate in heading.split(", ")
    }
    assert crates - listed == {next(crate for crate in crates if crate.startswith("redis-lb "))}
    # Two that are not only linked by the module itself, and each kind of text.
    assert {name for name, _ in map(str.split, listed)} > {"redis-module-common", "gimli", "memchr"}
    for owner in "Redis Labs Modules", "The gimli Developers", "Andrew Gallant":
        assert re.search(rf"^Copyright \(c\) .*{owner}$", ours, re.MULTILINE)
    assert "Copyright notices for The Rust Standard Library" in files["LICENSE-rust-library.html"].decode()


def test_the_description_of_the_wheel_links_to_nothing_in_the_project():
    """An index of packages shows it alone."""
    hatchling = [ROOT / "target" / "tools" / "bin" / "python", "-m", "hatchling", "metadata"]
    told = subprocess.run(
        hatchling, cwd=ROOT / "src" / "clients" / "python", stdout=subprocess.PIPE, check=True
    ).stdout
    text = json.loads(told)["readme"]["text"]
    assert {link for link in re.findall(r"\]\(([^)]*)\)", text) if not link.startswith("https://")} == set()
    assert "any of these (`tests/README.md`)" in text and "[redis-py](https://redis.readthedocs.io)" in text
    code = r"^```.*?^```$"
    assert re.findall(code, text, re.MULTILINE | re.DOTALL) == re.findall(
        code, README, re.MULTILINE | re.DOTALL
    )


def test_a_wheel_of_a_module_for_this_machine_alone_is_refused():
    refused = package("wheel", REDIS_LB_MODULE="x.so")
    assert refused.returncode != 0 and re.fullmatch(r"scripts/package: a wheel .*\n", refused.stderr)


@pytest.mark.long
def test_the_packages_are_the_same_each_time(packages):
    sums = packages[".gz"].with_name("SHA256SUMS")
    first = sums.read_text()
    assert package().returncode == 0
    assert sums.read_text() == first


@pytest.fixture(scope="session")
def wheel(packages, tmp_path_factory):
    """The Python program of an environment in which the wheel is installed, with redis-py beside it."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, packages[".whl"]], check=True)
    return folder / "bin" / "python"


def path_in(wheel):
    """The module in that environment, as its user asks for it."""
    ask = [wheel, "-c", "import redis_lb; print(redis_lb.path())"]
    return Path(subprocess.run(ask, stdout=subprocess.PIPE, text=True, check=True).stdout.strip())


@pytest.mark.long
def test_panics_in_the_module_of_the_wheel_are_caught_by_libgcc(wheel):
    """Zig's own unwinder ends servers whose allocator gives multiples of 8, see scripts/build."""
    dynamic = subprocess.run(
        ["readelf", "--dynamic", path_in(wheel)], stdout=subprocess.PIPE, text=True, check=True
    )
    assert "[libgcc_s.so.1]" in dynamic.stdout


@pytest.mark.long
def test_the_module_of_the_wheel_loads(wheel, new_server):
    client = new_server(module=path_in(wheel)).client()
    client.execute_command("LB.ADD web a 2 b 1")
    assert client.execute_command("LB.PICK web COUNT 3") == ["a", "b", "a"]
