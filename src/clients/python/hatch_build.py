"""Puts the module of the server, which $REDIS_LB_MODULE names, into the wheel. `scripts/package wheel` sets it."""

import os
import platform

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    """A module for glibc 2.17 and newer, as `auditwheel` confirms; it calls nothing of Python."""

    def initialize(self, version, build_data):
        """An editable install has the client alone."""
        if version != "editable":
            build_data["force_include"][os.environ["REDIS_LB_MODULE"]] = "redis_lb/libredis_lb.so"
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-manylinux_2_17_{platform.machine()}"
