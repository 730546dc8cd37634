"""Writes the golden files of this release: see README.md beside this file."""

import json
import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "server"))

from golden import told  # noqa: E402
from pools import KEYS, MAKE, Pools  # noqa: E402
from server import Server, eventually  # noqa: E402
from servers import fetch  # noqa: E402

SETTINGS = {"appendonly": "yes", "aof_use_rdb_preamble": "no", "module_args": ["clock", "manual"]}


def main() -> None:
    module = Path(os.environ["REDIS_LB_MODULE"]).absolute()
    server = Server(fetch("redis-6.2.5"), module, **SETTINGS).start()
    try:
        client = server.client()
        folder = HERE / client.info("lb")["lb_version"]
        folder.mkdir()
        # So that a seed of the primary's own gets into the stream.
        Pools(server).make([MAKE[0], "LB.PICK web random"])
        Pools(server).make(MAKE)
        client.save()
        shutil.copy(server.folder / "dump.rdb", folder)
        shutil.copy(server.folder / "appendonly.aof", folder / "stream.aof")
        client.bgrewriteaof()
        eventually(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
        shutil.copy(server.folder / "appendonly.aof", folder / "rewritten.aof")
        lines = [f"{json.dumps(key.hex())}: {json.dumps(told(Pools(server), key))}" for key in KEYS]
        (folder / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    finally:
        server.close()


if __name__ == "__main__":
    main()
