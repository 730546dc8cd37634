"""Least connections over the whole fleet beside balancers that count alone, on one trace of requests.

    scripts/bench queues [--quick]

Ten gateways share ten backends, each of which works on one request at a time. Requests come at random
(Poisson) at 80 % of what the backends can do; how long each takes is heavy-tailed (Pareto, alpha 1.5, cut
at 100 times the mean). Each policy gets the same trace. Who is picked is asked of the module, LB.PICK …
LEASE and LB.DONE on a real server: for the fleet on one pool, for balancers alone on a pool for each
gateway. Only the time is simulated.
"""

import heapq
import json
import random
from pathlib import Path
from statistics import mean

from script import module
from server import Server
from servers import installed

DATA = Path(__file__).parents[1] / "data"
GATEWAYS, BACKENDS, LOAD, ALPHA, CUT = 10, 10, 0.8, 1.5, 100
# By title: the algorithm, and of how many pools the gateways ask.
POLICIES = {
    "lc, one pool for the fleet": ("lc", 1),
    "p2c, one pool for the fleet": ("p2c", 1),
    "wrr, one pool for the fleet": ("wrr", 1),
    "lc, ten balancers alone": ("lc", GATEWAYS),
    "p2c, ten balancers alone": ("p2c", GATEWAYS),
    "wrr, ten balancers alone": ("wrr", GATEWAYS),
}


def trace(requests: int, seed: int = 1) -> list[tuple[float, int, float]]:
    """When each request comes, to which gateway, and how long it takes; the mean is 1."""
    chance = random.Random(seed)
    sizes = [min(chance.paretovariate(ALPHA), CUT * ALPHA / (ALPHA - 1)) for _ in range(requests)]
    scale = mean(sizes)
    now, all_of_them = 0.0, []
    for size in sizes:
        now += chance.expovariate(LOAD * BACKENDS)
        all_of_them.append((now, chance.randrange(GATEWAYS), size / scale))
    return all_of_them


def simulate(client, algorithm: str, pools: int, requests) -> dict[str, list[float]]:
    """How long each request waits for its backend, and how many it finds there."""
    client.flushall()
    for pool in range(pools):
        names = [word for backend in range(BACKENDS) for word in (backend, 1)]
        client.execute_command("LB.ADD", pool, *names)
        client.execute_command("LB.SEED", pool, pool)
    free_at, inside, running = [0.0] * BACKENDS, [0] * BACKENDS, []
    waits, lengths = [], []
    for now, gateway, size in requests:
        pipe = client.pipeline(transaction=False)
        while running and running[0][0] <= now:
            _, backend, pool, lease = heapq.heappop(running)
            inside[backend] -= 1
            pipe.execute_command("LB.DONE", pool, lease)
        pool = gateway % pools
        pipe.execute_command("LB.PICK", pool, algorithm, "LEASE", 1 << 40)
        backend, lease = pipe.execute()[-1]
        backend = int(backend)
        lengths.append(inside[backend])
        waits.append(max(0.0, free_at[backend] - now))
        free_at[backend] = max(now, free_at[backend]) + size
        inside[backend] += 1
        heapq.heappush(running, (free_at[backend], backend, pool, lease))
    return {"wait": waits, "length": lengths}


def percentile(figures: list[float], percent: float) -> float:
    """The figure that so many percent do not exceed."""
    return sorted(figures)[min(len(figures) - 1, int(len(figures) * percent / 100))]


def run(requests: int) -> dict:
    """The figures of all policies."""
    server = Server(installed(), module(), module_args=["clock", "manual"])
    try:
        client = server.start().client()
        measured = {}
        for title, (algorithm, pools) in POLICIES.items():
            found = simulate(client, algorithm, pools, trace(requests))
            measured[title] = {
                f"{what} {name}": round(of(found[what]), 2)
                for what in ("wait", "length")
                for name, of in (
                    ("mean", mean),
                    ("p50", lambda all_of_them: percentile(all_of_them, 50)),
                    ("p99", lambda all_of_them: percentile(all_of_them, 99)),
                )
            }
            print(f"{title}: {measured[title]}", flush=True)
        return {"requests": requests, "policies": measured}
    finally:
        server.close()


WIDTH, LINE, LABELS, BAR = 720, 30, 220, 420
STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #1f2328 }
  .page { fill: #ffffff; stroke: #d1d9e0 } .other { fill: #9aa4af } .ours { fill: #1a7f64 }
  .note { font-size: 12px; fill: #59636e }
"""


def picture(data: dict) -> str:
    """The 99th percentile of the wait, as bars."""
    bars = [(title, of["wait p99"]) for title, of in data["policies"].items()]
    top = max(wait for _, wait in bars)
    height = 96 + LINE * len(bars)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>" + "; ".join(f"{title}: {wait:.1f}" for title, wait in bars) + "</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        '<text x="20" y="34" font-weight="600">How long one request in a hundred waits at least '
        "(mean service time = 1)</text>",
    ]
    for i, (title, wait) in enumerate(bars):
        y = 54 + LINE * i
        kind = "ours" if "one pool" in title else "other"
        width = max(1, BAR * wait / top)
        lines += [
            f'<text x="{LABELS}" y="{y + 15}" text-anchor="end">{title}</text>',
            f'<rect class="{kind}" x="{LABELS + 10}" y="{y}" width="{width:.1f}" height="20" rx="2"/>',
            f'<text x="{LABELS + 18 + width:.1f}" y="{y + 15}">{wait:.1f}</text>',
        ]
    note = (
        f"{data['requests']:,} heavy-tailed requests, 10 gateways, 10 backends at 80 % load. "
        "Repeat it: scripts/bench queues"
    )
    lines += [f'<text class="note" x="20" y="{height - 18}">{note}</text>', "</svg>"]
    return "\n".join(lines) + "\n"


def main(quick: bool) -> None:
    """Writes tests/data/queues.json and .svg; a quick run only prints."""
    data = run(2_000 if quick else 50_000)
    if not quick:
        (DATA / "queues.json").write_text(json.dumps(data, indent=2) + "\n")
        (DATA / "queues.svg").write_text(picture(data))


if __name__ == "__main__":
    import sys

    main("--quick" in sys.argv)
