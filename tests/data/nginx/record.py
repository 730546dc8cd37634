#!/usr/bin/env python3
"""Record which backend a real nginx picks, and write sequences.json.

Every case is one upstream block of plain weighted servers.  All cases share
one nginx process and the same backends; nginx keeps the balancing state per
upstream block, so each case starts from a fresh state.
"""

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OUTPUT = Path(__file__).resolve().parent / "sequences.json"
HOST = "127.0.0.1"
MAX_WEIGHT = 65535
MIN_PICKS, MAX_PICKS, ROUNDS = 20, 1000, 3
START_SECONDS, STOP_SECONDS, REPLY_SECONDS = 10, 5, 5


def cases():
    """Return the list of (weights, indices of the servers that are down)."""
    fixed = [
        [5, 1, 1],
        [5, 3, 2],
        [1, 1, 1],
        [1],
        [7],
        [1, 1],
        [2, 1],
        [1, 2],
        [1, 1, 5],
        [3, 3, 3, 1],
        [1, 3, 3, 3],
        [4, 2, 2, 1],
        [10, 20, 30],
        [6, 4],
        [100, 1, 100, 1],
        list(range(1, 11)),
        list(range(10, 0, -1)),
        [1] * 16,
        [7] * 5,
        list(range(1, 101)),
        [1] * 100,
        [MAX_WEIGHT, 1],
        [1, MAX_WEIGHT],
        [MAX_WEIGHT] * 3,
        [MAX_WEIGHT] * 100,
        [MAX_WEIGHT, MAX_WEIGHT - 1, 1, 32768],
    ]
    with_down = [
        ([5, 1, 1], [0]),
        ([5, 1, 1], [1]),
        ([5, 1, 1], [2]),
        ([5, 1, 1], [0, 2]),
        ([2, 1], [0]),
        ([1, 1, 1, 1, 1], [2]),
        ([4, 2, 2, 1], [1, 2]),
        (list(range(1, 11)), [0, 4, 9]),
        ([3, 3, MAX_WEIGHT, 3, 1], [2]),
        (list(range(1, 101)), list(range(0, 100, 3))),
    ]
    rng = random.Random(20240229)
    drawn = []
    for count in range(2, 31):
        # In turn: a wide spread, many equal weights, and weights up to the maximum.
        top = (100, 3, MAX_WEIGHT)[count % 3]
        drawn.append([rng.randint(1, top) for _ in range(count)])
    for count in (5, 12, 20, 30):
        weights = [rng.randint(1, 20) for _ in range(count)]
        with_down.append((weights, sorted(rng.sample(range(count), count // 4))))
    return [(weights, []) for weights in fixed + drawn] + with_down


def free_ports(count):
    """Return `count` distinct loopback ports that are free right now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind((HOST, 0))
        return [sock.getsockname()[1] for sock in sockets]


def configuration(all_cases, front, backends):
    """Return the nginx.conf text; a backend answers with its own port number."""
    lines = [
        "worker_processes 1;",
        "daemon off;",
        "master_process off;",
        "pid nginx.pid;",
        "error_log stderr;",
        "events { worker_connections 1024; }",
        "http {",
        "access_log off;",
    ]
    for module in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
        lines.append(f"{module}_temp_path {module};")
    for number, (weights, down) in enumerate(all_cases):
        lines.append(f"upstream case{number} {{")
        for index, weight in enumerate(weights):
            state = " down" if index in down else ""
            lines.append(f"  server {HOST}:{backends[index]} weight={weight} max_fails=0{state};")
        lines.append("}")
    lines += [
        "server {",
        f"  listen {HOST}:{front};",
        "  keepalive_requests 100000000;",
        "  keepalive_timeout 1h;",
        "  proxy_next_upstream off;",
        "  add_header X-Upstream $upstream_addr always;",
    ]
    lines += [f"  location = /{n} {{ proxy_pass http://case{n}; }}" for n in range(len(all_cases))]
    lines += ["}", "server {"]
    lines += [f"  listen {HOST}:{port};" for port in backends]
    lines += ["  return 200 $server_port;", "}", "}", ""]
    return "\n".join(lines)


@contextlib.contextmanager
def running_nginx(program, config, front):
    """Run nginx in a temporary directory until the block ends."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "nginx.conf").write_text(config)
        # -p sets the directory that relative paths in the configuration start from.
        process = subprocess.Popen([program, "-p", directory + os.sep, "-c", "nginx.conf", "-e", "stderr"])
        try:
            wait_for_port(process, front)
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_port(process, port):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"record.py: nginx ended at start with status {process.returncode}")
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection((HOST, port), timeout=REPLY_SECONDS).close()
            return
        time.sleep(0.01)
    sys.exit(f"record.py: nginx did not answer within {START_SECONDS} seconds")


def pick(connection, number):
    """Send one request to the upstream of a case and return the chosen port."""
    connection.request("GET", f"/{number}")
    response = connection.getresponse()
    body = response.read().decode()
    # A retry inside nginx would list more than one address here.
    if response.status != 200 or response.getheader("X-Upstream") != f"{HOST}:{body}":
        sys.exit(
            f"record.py: case {number}: status {response.status}, "
            f"upstream {response.getheader('X-Upstream')}, body {body!r}"
        )
    return int(body)


def record(program):
    all_cases = cases()
    front, *backends = free_ports(1 + max(len(weights) for weights, _ in all_cases))
    index_of = {port: index for index, port in enumerate(backends)}
    recorded = []
    with running_nginx(program, configuration(all_cases, front, backends), front):
        with contextlib.closing(http.client.HTTPConnection(HOST, front, REPLY_SECONDS)) as connection:
            connection.connect()
            connection.auto_open = 0  # fail rather than open a second connection
            for number, (weights, down) in enumerate(all_cases):
                total = sum(w for index, w in enumerate(weights) if index not in down)
                count = max(MIN_PICKS, min(ROUNDS * total, MAX_PICKS))
                picks = [index_of[pick(connection, number)] for _ in range(count)]
                recorded.append({"weights": weights, "down": down, "picks": picks})
    return recorded


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nginx is stopped too
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
    if program is None:
        sys.exit("record.py: nginx is missing; install the Debian package nginx-light")
    recorded = record(program)
    lines = [json.dumps(case, separators=(",", ":")) for case in recorded]
    OUTPUT.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{OUTPUT.name}: {len(recorded)} cases, {sum(len(c['picks']) for c in recorded)} picks")


if __name__ == "__main__":
    main()
