"""A TCP proxy before a server, in a process of its own: `cut` stops it, and nobody hears from that server.

That is how tests cut a server off from the network. Firewall rules and network namespaces need root, and
tools that not every machine has; CONFIG and ACL refuse aloud, where a cut network says nothing.
"""

import asyncio
import functools
import signal
import socket
import subprocess
import sys

from server import BOUND

HOST = "127.0.0.1"


class Proxy:
    """Listens on a free port. Who connects before `lead_to` waits."""

    def __init__(self) -> None:
        command = [*BOUND, sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._process.stdout.readline())

    def lead_to(self, port: int) -> None:
        """From now on pass on to that port."""
        self._process.stdin.write(f"{port}\n")
        self._process.stdin.flush()

    def cut(self) -> None:
        """Let nothing through, without a word."""
        self._process.send_signal(signal.SIGSTOP)

    def heal(self) -> None:
        """Go on, with what was sent meanwhile."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


async def accept(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on in both directions until one side ends it."""
    try:
        there, back = await asyncio.open_connection(HOST, port)
    except OSError:
        writer.close()
        return
    await asyncio.gather(flow(reader, back), flow(there, writer))


async def flow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def serve() -> None:
    listener = socket.create_server((HOST, 0), backlog=128)
    print(listener.getsockname()[1], flush=True)
    port = int(sys.stdin.readline())
    async with await asyncio.start_server(functools.partial(accept, port), sock=listener) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
