"""What the programs behind scripts/ share: the module that they load, and how they refuse arguments."""

import argparse
import os
import subprocess
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[2]


def module() -> Path:
    """The module that $REDIS_LB_MODULE names; without it, the one that scripts/build makes now."""
    named = os.environ.get("REDIS_LB_MODULE")
    if not named:
        built = subprocess.run([ROOT / "scripts" / "build"], stdout=subprocess.PIPE, text=True, check=True)
        named = built.stdout.splitlines()[-1]
    return Path(named).absolute()


class Parser(argparse.ArgumentParser):
    """Refuses wrong arguments by one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; --help says more\n")
