"""A live table of a pool in the terminal: shares, running weights, leases, limits, health.

    python -m redis_lb.watch [--url redis://localhost:6379] [--once] [--interval seconds] [key]

Without a key it lists the pools. It only reads, so it can be pointed at a replica too.
"""

from __future__ import annotations

import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from .arguments import Parser
from .replies import TYPE, pairs

# A pool of more backends is shown as a summary: LB.STATS of all of them would hold up the server.
LISTED = 1_000
POOLS = 100
Fields = dict[str, Any]
# A redis.Redis. Older ones do not declare their types.
Client = Any
connect: Any = redis.Redis.from_url
RESET, BOLD, DIM, RED, YELLOW, GREEN = ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[33m", "\x1b[32m")
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
HOME, REST_OF_LINE, REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


@dataclass
class Look:
    """The figures of a pool at one moment."""

    at: float
    pool: Fields
    backends: dict[str, Fields]


@dataclass
class Line:
    """A line of the table."""

    cells: list[str]
    colour: str = ""


def fields(reply: Any) -> Fields:
    """What the server told of a pool or of a backend, by field; or of all backends, by name."""
    return {text(name): value for name, value in pairs(reply)}


def text(value: Any) -> str:
    """A name or a number as text that cannot steer a terminal."""
    raw = value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in raw)


def look(client: Client, key: str) -> Look | None:
    """The figures of the pool at that key; None if there is none."""
    pool = client.execute_command("LB.INFO", key)
    if pool is None:
        return None
    pool = fields(pool)
    stats: Any = {}
    if int(pool["backends"]) <= LISTED:
        stats = client.execute_command("LB.STATS", key)
    backends = {name: fields(of) for name, of in fields(stats).items()}
    return Look(time.monotonic(), pool, backends)


def number(of: Fields, field: str) -> int:
    """A field that is a whole number; 0 where a server does not have it."""
    return int(of.get(field, 0))


def state(of: Fields) -> tuple[str, str]:
    """Whether the backend can be picked, or why not, and the colour of the answer."""
    back = number(of, "back-in-ms")
    health = text(of["health"])
    if text(of["state"]) != "up":
        return text(of["state"]), DIM
    if health == "ejected":
        return f"ejected, probe {after(back)}", RED
    if health == "probing":
        return "probing", RED
    if health == "cooling":
        return f"cooling, back {after(back)}", YELLOW
    if number(of, "weight") == 0:
        return "weight 0", DIM
    if 0 < number(of, "max") <= number(of, "leases"):
        return "full", YELLOW
    if number(of, "rate") and number(of, "tokens") < 1:
        return "no tokens", YELLOW
    return ("starting", YELLOW) if health == "starting" else ("up", GREEN)


def after(millis: int) -> str:
    """A time from now on."""
    if millis <= 0:
        return "now"
    if millis < 10_000:
        return f"in {millis / 1000:.1f} s"
    return f"in {millis / 1000:.0f} s" if millis < 600_000 else f"in {millis / 60_000:.0f} min"


def share(part: float, whole: float) -> str:
    """A part of a whole in percent."""
    return f"{100 * part / whole:.1f}%" if whole else "-"


def limited(of: Fields, used: str, most: str) -> str:
    """A number beside its limit, if it has one."""
    return f"{number(of, used)}/{number(of, most)}" if number(of, most) else f"{number(of, used)}"


def duration(micros: int) -> str:
    """Microseconds in a readable unit."""
    if micros == 0:
        return "-"
    for unit, size in ("s", 1_000_000), ("ms", 1_000):
        if micros >= size:
            return f"{micros / size:.3g} {unit}"
    return f"{micros} µs"


def heads(key: str, now: Look, before: Look | None) -> Iterator[str]:
    """The lines about the pool as a whole."""
    pool = now.pool
    parts = [
        f"{BOLD}{text(key)}{RESET}",
        text(pool["policy"]),
        f"{number(pool, 'available')} of {number(pool, 'backends')} backends available",
        f"{number(pool, 'picks'):,} picks",
    ]
    if before:
        parts.append(f"{rate(pool, before.pool, now.at - before.at):,.0f} picks/s")
    parts.append(f"leases {limited(pool, 'leases', 'max')}")
    if number(pool, "rate"):
        parts.append(f"tokens {limited(pool, 'tokens', 'burst')}")
    yield "  ".join(parts)
    troubles = [f"{number(pool, field)} {field}" for field in ("ejected", "cooling", "held") if number(pool, field)]
    if number(pool, "waiting"):
        oldest = duration(1000 * number(pool, "oldest-wait-ms"))
        troubles.append(f"{number(pool, 'waiting')} waiting, the first for {oldest}")
    yield f"{YELLOW}{', '.join(troubles)}{RESET}" if troubles else ""


def rate(now: Fields, before: Fields, seconds: float) -> float:
    """Picks in a second. A pool that was made anew has fewer than before."""
    return max(0, number(now, "picks") - number(before, "picks")) / seconds


HEAD = "backend state weight running asked got picks/s leases tokens latency failed".split()
TO_THE_LEFT = 2
WIDEST = 48


def lines(now: Look, before: Look | None) -> list[Line]:
    """The lines about each backend: first those that are out."""
    old = before.backends if before else {}
    seconds = now.at - before.at if before else 0
    weights = sum(number(of, "weight") for of in now.backends.values())
    # Since the look before; at first, and while nothing is picked, since the pool began.
    news = {name: max(0, number(of, "picks") - number(old.get(name, {}), "picks")) for name, of in now.backends.items()}
    counted = news if any(news.values()) else {name: number(of, "picks") for name, of in now.backends.items()}
    picks = sum(counted.values())
    found = []
    for name, of in now.backends.items():
        word, colour = state(of)
        ended = number(of, "done") + number(of, "failures")
        cells = [
            name if len(name) <= WIDEST else f"{name[: WIDEST - 1]}…",
            word,
            text(of["weight"]),
            text(of["running-weight"]),
            share(number(of, "weight"), weights),
            share(counted[name], picks),
            f"{news[name] / seconds:,.0f}" if before else "-",
            limited(of, "leases", "max"),
            limited(of, "tokens", "burst") if number(of, "rate") else "-",
            duration(number(of, "latency-us")),
            share(number(of, "failures"), ended),
        ]
        found.append(Line(cells, colour))
    return sorted(found, key=lambda line: line.colour == GREEN)


def table(head: Sequence[str], rows: list[Line], width: int) -> Iterator[str]:
    """The lines in columns, cut at the width of the terminal."""
    widths = [max(len(line[at]) for line in [head, *(row.cells for row in rows)]) for at in range(len(head))]

    def aligned(cells: Sequence[str]) -> str:
        sides = [str.ljust] * TO_THE_LEFT + [str.rjust] * (len(cells) - TO_THE_LEFT)
        padded = [side(cell, wide) for side, cell, wide in zip(sides, cells, widths, strict=True)]
        return "  ".join(padded)[:width]

    yield f"{DIM}{aligned(head)}{RESET}"
    for row in rows:
        yield f"{row.colour}{aligned(row.cells)}{RESET}"


def pools(client: Client) -> list[str]:
    """The keys of the first pools that SCAN finds."""
    found: list[str] = []
    for key in client.scan_iter(_type=TYPE, count=1000):
        found.append(text(key))
        if len(found) == POOLS:
            break
    return sorted(found)


POOL_HEAD = ["pool", "policy", "backends", "available", "picks", "leases", "ejected", "cooling", "waiting"]


def listed(client: Client, width: int) -> Iterator[str]:
    """A line for each pool."""
    rows = []
    for key in pools(client):
        pool = client.execute_command("LB.INFO", key)
        if pool is None:
            continue
        of = fields(pool)
        is_out = number(of, "available") == 0
        is_less = number(of, "ejected") or number(of, "cooling")
        numbers = [f"{number(of, field):,}" for field in POOL_HEAD[2:5]]
        numbers += [limited(of, "leases", "max"), *(str(number(of, field)) for field in POOL_HEAD[6:])]
        rows.append(Line([key, text(of["policy"]), *numbers], RED if is_out else YELLOW if is_less else GREEN))
    if not rows:
        yield "There is no pool. LB.ADD makes one."
        return
    yield from table(POOL_HEAD, rows, width)
    if len(rows) == POOLS:
        yield f"… the first {POOLS} that SCAN found"


def page(client: Client, key: str | None, before: Look | None, width: int) -> tuple[list[str], Look | None]:
    """What is shown now, and the look that the next page is compared to."""
    if key is None:
        return list(listed(client, width)), None
    now = look(client, key)
    if now is None:
        return [f"{BOLD}{text(key)}{RESET}  There is no pool at this key."], None
    shown = list(heads(key, now, before))
    if number(now.pool, "backends") > LISTED:
        shown.append(f"Backends are listed up to {LISTED:,}; LB.STATS {key} <backend> describes one.")
    elif now.backends:
        shown += table(HEAD, lines(now, before), width)
    return shown, now


def plain(shown: list[str]) -> str:
    """Without colours."""
    return re.sub(r"\x1b\[\d+m", "", "\n".join(shown)).rstrip() + "\n"


def watch(client: Client, key: str | None, interval: float) -> None:
    """Shows one page after the other until a signal ends it."""
    before: Look | None = None
    out = sys.stdout
    out.write(ENTER)
    try:
        while True:
            size = shutil.get_terminal_size()
            try:
                shown, before = page(client, key, before, size.columns)
            except redis.ConnectionError as error:
                # It comes back by itself, a failover included.
                shown, before = [f"{RED}{error}{RESET}"], None
            if len(shown) > size.lines:
                shown = [*shown[: size.lines - 1], f"{DIM}… and {len(shown) - size.lines + 1} more{RESET}"]
            out.write(HOME + "\n".join(line + REST_OF_LINE for line in shown) + REST_OF_SCREEN)
            out.flush()
            time.sleep(interval)
    except KeyboardInterrupt:
        pass
    finally:
        out.write(LEAVE)
        out.flush()


def stop(*_: object) -> None:
    """Ends as Ctrl-C does."""
    raise KeyboardInterrupt


def main(name: str = "redis_lb.watch") -> None:
    """What the command line asks for."""
    parser = Parser(prog=name, description="Shows a pool as a live table in the terminal.")
    parser.add_argument("key", nargs="?", help="the pool; without it, all pools are listed")
    parser.add_argument("--url", default="redis://localhost:6379", help="the server (default: %(default)s)")
    parser.add_argument("--interval", type=float, default=1, help="seconds between two looks (default: 1)")
    parser.add_argument("--once", action="store_true", help="one look, without colours")
    options = parser.parse_args()
    if not 0.1 <= options.interval <= 3600:
        parser.error("--interval is between 0.1 and 3600 seconds")
    try:
        client: Client = connect(options.url, socket_timeout=5)
        if options.once or not sys.stdout.isatty():
            shown, _ = page(client, options.key, None, 10_000)
            print(plain(shown), end="")
            return
        signal.signal(signal.SIGTERM, stop)
        watch(client, options.key, options.interval)
    except (redis.RedisError, ValueError) as error:
        sys.exit(f"{name}: {error}")


if __name__ == "__main__":
    main()
