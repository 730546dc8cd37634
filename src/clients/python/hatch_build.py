"""What the wheel has beside the client: the module, and the README as it can be read outside of the project."""

import os
import platform
import re
from pathlib import Path, PurePosixPath

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

HERE = PurePosixPath("src/clients/python")


class Module(BuildHookInterface):
    """The library that $REDIS_LB_MODULE names: `scripts/package wheel` sets it.

    It runs with glibc 2.17 and newer, as `auditwheel` confirms, and calls nothing of Python.
    """

    def initialize(self, version, build_data):
        """An editable install has the client alone."""
        if version != "editable":
            build_data["force_include"][os.environ["REDIS_LB_MODULE"]] = "redis_lb/libredis_lb.so"
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-manylinux_2_17_{platform.machine()}"


class Description(MetadataHookInterface):
    """README.md without links into the project: where packages are shown, they lead nowhere."""

    def update(self, metadata):
        """An index of packages shows the same text as the folder in the project."""
        text = Path(self.root, "README.md").read_text()
        metadata["readme"] = {"content-type": "text/markdown", "text": alone(text)}


def alone(text):
    """A document whose links to other files of the project are their names."""
    # Code is between fences or backquotes.
    parts = re.split(r"(^```.*?^```$|`[^`\n]*`)", text, flags=re.MULTILINE | re.DOTALL)
    linkless = (part if part.startswith("`") else re.sub(LINK, named, part) for part in parts)
    return "".join(linkless) + "\nFiles whose names are in parentheses belong to the sources of redis-lb.\n"


LINK = r"\[([^]]*)\]\((?!https?:)([^)]*)\)"


def named(link):
    """The words of a link, and the file in the project that it leads to."""
    words, target = link.groups()
    file = target.partition("#")[0]
    return f"{words} (`{os.path.normpath(HERE / file)}`)" if file else words
