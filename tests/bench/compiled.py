"""Programs and libraries of C files beside this one, in target/bench."""

import hashlib
import os
import subprocess
from functools import cache
from pathlib import Path

TARGET = Path(__file__).parents[2] / "target" / "bench"


@cache
def compiled(name: str, *options: str) -> Path:
    """That file, compiled where that was not done yet. Several processes may ask for it at once."""
    source = Path(__file__).with_name(name)
    made = TARGET / f"{source.stem}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if not made.exists():
        TARGET.mkdir(parents=True, exist_ok=True)
        part = made.with_suffix(f".{os.getpid()}")
        command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", *options, "-o", part, source]
        subprocess.run(command, check=True)
        part.rename(made)
    return made
