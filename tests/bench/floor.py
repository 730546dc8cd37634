"""The module of floor.c, below which no module can go."""

import subprocess
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("floor.c")
LIBRARY = Path(__file__).parents[2] / "target" / "bench" / "floor.so"


@cache
def floor() -> str:
    """What a server's `loadmodule` needs to load it."""
    LIBRARY.parent.mkdir(parents=True, exist_ok=True)
    options = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["gcc", *options, "-o", LIBRARY, SOURCE], check=True)
    return f'"{LIBRARY}"'
