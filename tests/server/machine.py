"""This machine once more, or another one, to install things: nobody else sees it, and nothing stays."""

import os
import subprocess
from pathlib import Path

from server import BOUND

# An overlay of a whole file system, which lives as long as the first process in it. The number that it
# prints is its own, as the processes outside see it. It prints it once it sees nothing but the overlay: a
# command that went to it before would change the real files.
MADE = """
set -e
mount -t tmpfs redis-lb "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay redis-lb -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount --bind /dev "$1/root/dev"
read -r number _ </proc/self/stat
mount -t proc proc "$1/root/proc"
exec chroot "$1/root" sh -c 'echo "$1"; exec sleep infinity' sh "$number"
"""

# What the unit of Debian's redis-server allows: NoExecPaths, ExecPaths, ProtectSystem and ReadWritePaths, the
# user, no new privileges. (setpriv is there to give them up.)
UNIT = """
set -e
install -d -o redis -g redis /run/redis
for path in /usr/lib /usr/bin/redis-server /usr/bin/setpriv /etc/redis /run/redis /var/l??/redis; do
  mount --bind "$path" "$path"
done
mount -o remount,bind,ro,noexec /
exec setpriv --reuid redis --regid redis --clear-groups --no-new-privs --bounding-set=-all \\
  /usr/bin/redis-server /etc/redis/redis.conf --supervised no --daemonize no --port "$1"
"""


class Machine:
    """The files of a machine, by default of this one, to change at will, and processes that end with it."""

    def __init__(self, folder: Path, files: Path = Path("/")) -> None:
        self.files = files
        self._folder = folder
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        self._first = subprocess.Popen(
            [*BOUND, *apart, "bash", "-c", MADE, "bash", folder, files],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._number = self._first.stdout.readline().strip()
        if not self._number:
            raise OSError(self._first.communicate()[1].strip())
        assert self.run("stat", "--file-system", "--format", "%T", "/") == "overlayfs\n"

    def run(self, *command: str, typed: bytes | None = None) -> str:
        """What a command in it prints."""
        done = subprocess.run(
            [*self._inside(), *command],
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=100,
        )
        assert done.returncode == 0, f"{command} ends with {done.returncode}:\n{done.stdout.decode()}"
        return done.stdout.decode()

    def start_server(self, port: int) -> subprocess.Popen:
        """Its redis-server, as Debian's unit would start it."""
        unit = ["unshare", "--mount", "--propagation", "private", "sh", "-c", UNIT, "sh", str(port)]
        return subprocess.Popen([*self._inside(), *unit], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def changed(self) -> set[Path]:
        """The files that are new, changed or gone."""
        upper = self._folder / "upper"
        enter = ["nsenter", "--target", self._number, "--mount"]
        found = subprocess.run(
            [*enter, "find", upper, "-not", "-type", "d", "-printf", "/%P\\n"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return {Path(line) for line in found.stdout.splitlines()}

    def _inside(self) -> list[str]:
        return ["nsenter", "--target", self._number, "--mount", "--pid", "--root", "--wd"]

    def close(self) -> None:
        """Ends all that runs in it."""
        self._first.kill()
        self._first.communicate()
