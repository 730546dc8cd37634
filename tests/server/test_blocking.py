"""LB.PICK … BLOCK: who waits, who is served when, and what becomes of a waiter whatever happens to its key,
its client or its server."""

import contextlib
import random
import select
import statistics
import time

import pytest

from callgrind import Callgrind, missing
from cluster import slots
from conftest import module
from payload import member, payload
from persistence import AOF, stream
from replication import is_linked, replica_of
from server import eventually, waiting
from waiter import NEVER, Waiter, blocked, lease, leases
from wire import Refused, Wire, dict_of, pack, words


@pytest.fixture
def web(server):
    """A client, and a pool `web` with one backend, which is taken."""
    with Wire(server.port) as wire:
        yield take(wire)


def take(wire):
    """Makes the pool `web`; the lease is at `wire.taken`."""
    assert wire.ask("LB.ADD web a") == 1
    assert wire.ask("LB.LIMIT web BACKEND a MAX 1") == "OK"
    wire.taken = lease(wire.ask("LB.PICK web LEASE 60000 OWNER holder"))
    return wire


def done(wire, waiter_answer):
    assert wire.ask(f"LB.DONE web {lease(waiter_answer)}") == 1


# Order


def test_waiters_are_served_in_the_order_in_which_they_came(server, web):
    waiters = [Waiter(server) for _ in range(5)]
    held = web.taken
    for place, waiter in enumerate(waiters):
        assert all(w.waits() for w in waiters[place:])
        assert web.ask(f"LB.DONE web {held}") == 1
        name, held = waiter.read()
        assert name == b"a"
        held = held.decode()
    assert blocked(web) == 0


def test_a_waiter_who_cannot_use_what_came_keeps_its_place(server, web):
    web.ask("LB.STATE web a down")
    picky = Waiter(server, "LB.PICK web EXCLUDE 2 a b LEASE 60000 BLOCK 0")
    second = Waiter(server, "LB.PICK web EXCLUDE 2 b x LEASE 60000 BLOCK 0")
    third = Waiter(server)
    web.ask("LB.ADD web b")
    web.ask("LB.LIMIT web BACKEND b MAX 1")
    assert third.read()[0] == b"b"
    assert picky.waits() and second.waits()
    web.ask("LB.STATE web a up")
    assert second.read()[0] == b"a"
    assert picky.waits()
    fourth = Waiter(server)
    web.ask("LB.ADD web c")
    web.ask("LB.LIMIT web BACKEND c MAX 1")
    assert picky.read()[0] == b"c"
    assert fourth.read()[0] == b"c"


@pytest.mark.parametrize(
    "newcomer", [f"{NEVER}", "LB.PICK web LEASE 60000", "LB.PICK web", "LB.PICK web COUNT 1"]
)
def test_a_newcomer_robs_nobody(server, web, newcomer):
    waiter = Waiter(server)
    with Wire(server.port) as late:
        # In one piece, so that nothing comes between.
        late.send(pack(words(f"LB.DONE web {web.taken}")) + pack(words(newcomer)))
        assert late.read() == 1
        assert waiter.read()[0] == b"a"
        if "BLOCK" not in newcomer:
            assert late.read() in (None, [])


@pytest.mark.parametrize("command", ["RENAME other web", "COPY other web REPLACE", "RESTORE"])
def test_nor_does_one_that_comes_right_behind_another_pool(server, web, command):
    web.ask("LB.ADD other b")
    web.ask("LB.LIMIT other BACKEND b MAX 1")
    if command == "RESTORE":
        command = [b"RESTORE", b"web", b"0", web.ask("DUMP other"), b"REPLACE"]
    waiter = Waiter(server)
    web.ask("MULTI")
    web.ask(command)
    web.ask("LB.PICK web LEASE 60000")
    assert web.ask("EXEC")[1] is None
    assert waiter.read()[0] == b"b"


# What wakes whom

# A pool with the backend `b`, which can have one lease.
ONE_PLACE = payload(
    (1, 0, 0, b"\0"), [member(b"b", 1, 0, 0, 0)], (0, 0, (0, None), 0, 0), [(0, (1, None), 0, [0] * 5)]
)
# What happens, and what frees one place in the pool `web`.
FREE = {
    "DONE": "LB.DONE web {taken}",
    "RENEW": "LB.RENEW web {taken} 1",
    "RELEASE": "LB.RELEASE web OWNER holder",
    "MAX": "LB.LIMIT web BACKEND a MAX 2",
    "ADD": ["LB.ADD web b 0", "LB.LIMIT web BACKEND b MAX 1", "LB.ADD web b 1"],
    "SET": ["LB.LIMIT web MAX 2", "LB.SET web a 1 b 1"],
    "WEIGHT": ["LB.ADD web b 0", "LB.LIMIT web BACKEND b MAX 1", "LB.WEIGHT web b 3"],
    "STATE": [
        "LB.ADD web b 0",
        "LB.LIMIT web BACKEND b MAX 1",
        "LB.STATE web b drain",
        "LB.WEIGHT web b 3",
        "LB.STATE web b up",
    ],
    "REM": ["LB.LIMIT web MAX 1", "LB.ADD web b", "LB.REM web a"],
    "down": ["LB.LIMIT web MAX 1", "LB.ADD web b", "LB.STATE web a down"],
    "EVAL": [[b"EVAL", b"return redis.call('LB.DONE', KEYS[1], ARGV[1])", b"1", b"web", b"{taken}"]],
    "MULTI": ["MULTI", "LB.DONE web {taken}", "EXEC"],
    "RENAME": "RENAME other web",
    "COPY": "COPY other web REPLACE",
    "RESTORE": "RESTORE other",
    "LOAD": [[b"LB.LOAD", b"web", ONE_PLACE, b"REPLACE"]],
    "DEL and ADD": ["DEL web", "LB.LIMIT web MAX 1", "LB.ADD web b"],
    "MOVE": ["DEL web", "SELECT 1", "MOVE web 0", "SELECT 0"],
    "SWAPDB": ["SWAPDB 0 1"],
    "SWAPDB, the other way": ["SWAPDB 1 0"],
}


@pytest.mark.parametrize("commands", FREE.values(), ids=FREE)
def test_what_frees_one_place_wakes_one(server, web, commands):
    for db, name in [(0, "other"), (1, "web")]:
        web.ask(f"SELECT {db}")
        web.ask(f"LB.ADD {name} b")
        web.ask(f"LB.LIMIT {name} BACKEND b MAX 1")
    web.ask("SELECT 0")
    first, second = Waiter(server), Waiter(server)
    for command in [commands] if isinstance(commands, str) else commands:
        assert first.waits() or "EXEC" in command or "SELECT" in command
        if command == "RESTORE other":
            command = [b"RESTORE", b"web", b"0", web.ask("DUMP other"), b"REPLACE"]
        else:
            command = [word.replace(b"{taken}", web.taken.encode()) for word in words(command)]
        assert not isinstance(answer := web.ask(command), Refused), answer
    assert isinstance(first.read(), list)
    web.ask("LB.CARD web")
    time.sleep(0.15)  # A timer would have come by.
    assert second.waits()


def test_the_end_of_a_lease_wakes_one(server, web):
    web.ask(f"LB.RENEW web {web.taken} 300")
    first, second = Waiter(server), Waiter(server)
    assert first.read()[0] == b"a"
    assert second.waits()


def test_a_refilled_bucket_wakes_as_many_as_it_has_tokens(server):
    with Wire(server.port) as wire:
        wire.ask("LB.ADD web a")
        wire.ask("LB.LIMIT web BACKEND a RATE 1 200")
        begun = time.monotonic()
        wire.ask("LB.PICK web")
        waiters = [Waiter(server, "LB.PICK web BLOCK 0") for _ in range(3)]
        assert [waiter.read() for waiter in waiters] == [b"a"] * 3
        assert time.monotonic() - begun > 0.55


@pytest.mark.parametrize("waiters", [1, 20])
@pytest.mark.parametrize(("rate", "burst"), [(100, 2), (1000, 20)])
def test_a_rate_is_used_up_by_waiters(server, rate, burst, waiters):
    """All but a tenth at least, where a timer of 50 ms gave a fifth.

    The best of some rounds: tokens are lost where the machine stands still until the bucket is full.
    """
    with Wire(server.port) as wire:
        wire.ask("LB.ADD web a")
        wire.ask(f"LB.LIMIT web BACKEND a RATE {rate} 1000 BURST {burst}")
        clients = [Wire(server.port) for _ in range(waiters)]
        pick = pack(words("LB.PICK web BLOCK 0"))
        wire.ask(f"LB.PICK web COUNT {burst}")
        for client in clients:
            client.send(pick)
        used = []
        for _ in waiting(60, pause=0):
            before = time.monotonic()
            given = 0
            while (passed := time.monotonic() - before) < 0.5:
                for ready in select.select([client._socket for client in clients], [], [], 0.1)[0]:
                    client = next(client for client in clients if client._socket is ready)
                    assert client.read() == b"a"
                    client.send(pick)
                    given += 1
            used.append(given / (rate * passed))
            if used[-1] > 0.9:
                return
        raise AssertionError(f"of what is allowed were given {used}")


@pytest.mark.parametrize(("where", "rate"), [("", "1 10"), ("BACKEND a", "1 10"), ("BACKEND a", "0 0")])
def test_a_raised_rate_wakes(server, where, rate):
    with Wire(server.port) as wire:
        wire.ask("LB.ADD web a")
        wire.ask(f"LB.LIMIT web {where} RATE 1 3600000")
        wire.ask("LB.PICK web")
        waiters = [Waiter(server, "LB.PICK web BLOCK 0") for _ in range(3)]
        wire.ask(f"LB.LIMIT web {where} RATE {rate}")
        assert [waiter.read() for waiter in waiters] == [b"a"] * 3


def test_a_pool_that_comes_from_another_server_wakes(server, new_server):
    with Wire(new_server().port) as there:
        there.ask("LB.ADD web a")
        there.ask("LB.LIMIT web BACKEND a MAX 1")
        with Waiter(server) as first, Waiter(server) as second:
            assert there.ask(f"MIGRATE 127.0.0.1 {server.port} web 0 10000") == "OK"
            assert first.read()[0] == b"a"
            assert second.waits()


def test_all_who_can_be_served_are_served_at_once(server, web):
    waiters = [Waiter(server) for _ in range(5)]
    web.ask("LB.LIMIT web BACKEND a MAX 4")
    ids = {waiter.read()[1] for waiter in waiters[:3]}
    assert len(ids) == 3
    assert all(waiter.waits() for waiter in waiters[3:])
    web.ask("LB.LIMIT web BACKEND a MAX 0")
    assert len({waiter.read()[1] for waiter in waiters[3:]}) == 2


def test_keys_do_not_mix(server, web):
    other = Waiter(server, "LB.PICK other BLOCK 0")
    elsewhere = Waiter(server, "LB.PICK web EXCLUDE 1 a BLOCK 0")
    web.ask(f"LB.DONE web {web.taken}")
    assert other.waits() and elsewhere.waits()
    web.ask("LB.ADD other x")
    assert other.read() == b"x"


def test_a_client_stays_in_its_database(server, web):
    """Valkey 8.1 and 9.0 leave it in the other one, if a module listens to what happens to keys."""
    waiter = Waiter(server)
    web.ask("LB.PICK other LEASE 100")
    for name in "some", "web":
        web.ask("SET some x")
        assert web.ask(f"COPY {name} there DB 3 REPLACE") == 1
        assert web.ask(f"MOVE {name} 2") == 1
        assert b" db=0 " in next(line for line in web.ask("CLIENT LIST").splitlines() if b"client" in line)
    assert waiter.waits()


# What is answered


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("", None),
        ("LEASE 10", None),
        ("COUNT 3", []),
        ("COUNT 3 DISTINCT LEASE 10 OWNER me", []),
        ("EXCLUDE 1 x", None),
    ],
)
def test_at_the_deadline_the_answer_is_that_there_is_none(server, web, protocol, words, answer):
    for key in "web", "missing":
        begun = time.monotonic()
        with Wire(server.port, protocol) as wire:
            assert wire.ask(f"LB.PICK {key} {words} BLOCK 60") == answer
        assert time.monotonic() - begun > 0.059
    assert blocked(web) == 0


def test_a_waiter_gets_what_it_asked_for(server, web):
    web.ask("LB.ADD web b 0 c 0")
    leased = Waiter(server, "LB.PICK web rr COUNT 9 DISTINCT LEASE 60000 OWNER me BLOCK 0", protocol=3)
    web.ask("LB.WEIGHT web b 1")
    [[name, held]] = leased.read()
    assert name == b"b"
    assert web.ask("LB.LEASES web OWNER me")[0][1] == held
    web.ask("LB.WEIGHT web b 0")
    many = Waiter(server, "LB.PICK web COUNT 3 BLOCK 0")
    web.ask("LB.WEIGHT web b 1")
    assert many.read() == [b"b"] * 3
    web.ask("LB.WEIGHT web b 0")
    for command in ["LB.PICK web random BLOCK 9000", "LB.PICK web BLOCK 9000", "LB.PICK web hash"]:
        if "hash" in command:
            break
        waiter = Waiter(server, command)
        web.ask("LB.WEIGHT web b 1 c 0")
        assert waiter.read() == b"b"
        web.ask("LB.WEIGHT web b 0")
    assert web.ask("LB.RELEASE web OWNER me") == 1


def test_a_waiter_who_named_no_algorithm_is_served_by_the_policy_of_then(server, web):
    web.ask("LB.ADD other a 0 b 0")
    waiter = Waiter(server, "LB.PICK other BLOCK 0")
    web.ask("LB.POLICY other rr")
    assert web.ask("LB.WEIGHT other a 1 b 5") == "OK"
    assert waiter.read() == b"a", "wrr would have begun with b"


def test_count_answers_what_there_is_but_one_at_least(server, web):
    web.ask("LB.LIMIT web BACKEND a MAX 3")
    web.ask("LB.PICK web COUNT 2 LEASE 60000")
    few = Waiter(server, "LB.PICK web COUNT 5 LEASE 60000 BLOCK 0")
    web.ask(f"LB.DONE web {web.taken}")
    assert [name for name, _ in few.read()] == [b"a"]


def test_who_need_not_wait_does_not(server, web):
    web.ask(f"LB.DONE web {web.taken}")
    assert web.ask("LB.PICK web BLOCK 0") == b"a"


def test_a_wait_may_be_very_long_and_no_longer(server, web):
    longest = Waiter(server, f"LB.PICK web BLOCK {1 << 40}")
    web.ask(f"LB.DONE web {web.taken}")
    assert longest.read() == b"a"
    for bad in (1 << 40) + 1, -1, "x", "":
        assert web.ask([b"LB.PICK", b"web", b"BLOCK", str(bad).encode()]).code == "ERR"


def test_info_tells_of_waits_and_refusals_of_this_server(server, web):
    def told(*fields):
        info = dict_of(web.ask("LB.INFO web"))
        return [info[field.encode()] for field in fields]

    assert told("waiting", "oldest-wait-ms", "refused") == [0, 0, 0]
    assert web.ask("LB.PICK web") is None
    assert web.ask("LB.PICK web LEASE 1000") is None
    assert web.ask("LB.PICK web COUNT 2") == []
    assert web.ask("LB.PICK web EXCLUDE 1 a BLOCK 1") is None
    assert told("waiting", "refused") == [0, 4]
    first, second = Waiter(server), Waiter(server)
    eventually(lambda: told("oldest-wait-ms")[0] >= 50)
    assert told("waiting", "refused") == [2, 4]
    web.ask("RENAME web other")
    assert web.ask("LB.INFO web") is None
    web.ask("RENAME other web")
    assert told("waiting", "refused") == [2, 4]
    web.ask(f"LB.DONE web {web.taken}")
    first.read()
    assert told("waiting", "refused") == [1, 4]
    assert web.ask(f"CLIENT KILL ID {second.id}") == 1
    eventually(lambda: told("waiting", "oldest-wait-ms") == [0, 0])
    third = Waiter(server)
    assert web.ask(f"CLIENT UNBLOCK {third.id}") == 1
    assert third.read() is None
    assert told("waiting", "refused") == [0, 5]


# Where nobody can wait


def test_nobody_waits_in_a_transaction(web):
    web.ask("MULTI")
    web.ask("LB.PICK web BLOCK 0")
    web.ask("LB.PICK web COUNT 2 LEASE 1000 BLOCK 0")
    assert web.ask("EXEC") == [None, []]


def test_nobody_waits_in_a_script(web):
    assert web.ask([b"EVAL", b"return redis.call('LB.PICK', KEYS[1], 'BLOCK', 0)", b"1", b"web"]) is None


@pytest.mark.needs("7.0", "Functions")
def test_nobody_waits_in_a_function(web):
    body = "function(k) return redis.call('LB.PICK', k[1], 'BLOCK', 0) end"
    code = f"#!lua name=waits\nredis.register_function('waits', {body})"
    web.ask([b"FUNCTION", b"LOAD", b"REPLACE", code.encode()])
    assert web.ask("FCALL waits 1 web") is None


def test_nobody_waits_on_a_replica_that_takes_writes(new_server):
    primary = new_server()
    replica = new_server(**replica_of(primary), replica_read_only="no")
    eventually(lambda: is_linked(replica))
    with Wire(replica.port) as wire:
        assert wire.ask("LB.PICK web BLOCK 0") is None


# The stream


def test_what_a_waiter_was_given_is_in_the_stream(new_server):
    primary = new_server(**AOF)
    replica = new_server(**replica_of(primary))
    eventually(lambda: is_linked(replica))
    with Wire(primary.port) as wire:
        take(wire)
        waits = [
            "LB.PICK web lc LEASE 60000 OWNER me BLOCK 0",
            "LB.PICK web COUNT 3 LEASE 60000 BLOCK 60000",
            "LB.PICK web random COUNT 3 DISTINCT EXCLUDE 2 x a BLOCK 0",
            "LB.PICK web EXCLUDE 1 b LEASE 600000 BLOCK 0",
            "LB.PICK web p2c BLOCK 0",
            "LB.PICK elsewhere p2c LEASE 200 BLOCK 0",
        ]
        waiters = [Waiter(primary, command) for command in waits]
        assert wire.ask("LB.PICK web LEASE 5 BLOCK 30") is None
        wire.ask(f"LB.DONE web {wire.taken}")
        done(wire, waiters[0].read())
        done(wire, waiters[1].read()[0])
        wire.ask("LB.ADD web b")
        wire.ask("LB.ADD there z")
        wire.ask("RENAME there elsewhere")
        for waiter in waiters[2:]:
            assert waiter.read()
        eventually(lambda: leases(wire, "elsewhere") == 0)
        digest = wire.ask("DEBUG DIGEST-VALUE web elsewhere")
    with Wire(replica.port) as other:
        eventually(lambda: other.ask("DEBUG DIGEST-VALUE web elsewhere") == digest)
    commands = stream(primary)
    primary.restart()
    with Wire(primary.port) as wire:
        assert wire.ask("DEBUG DIGEST-VALUE web elsewhere") == digest
    assert not any(b"BLOCK" in command for command in commands)
    assert [c for c in commands if b"60000" in c and b"me" in c] == [
        words("LB.PICK web lc LEASE 60000 OWNER me")
    ]
    # What a waiter was given stands behind what freed it.
    dones = [number for number, c in enumerate(commands) if c[0] == b"LB.DONE"]
    given = [number for number, c in enumerate(commands) if b"me" in c]
    assert dones[0] < given[0]


def test_whatever_waiters_are_given_is_the_same_everywhere(new_server):
    """Clients wait, are served, time out, and are killed, while an operator does anything to their pool."""
    primary = new_server(**AOF)
    replica = new_server(**replica_of(primary))
    eventually(lambda: is_linked(replica))
    chance = random.Random(5)
    clients: list[Wire] = []
    asked, ids, killed, busiest, full = {}, set(), set(), 0, 0
    with Wire(primary.port) as wire:
        for command in MIX_BEGINS:
            assert not isinstance(wire.ask(command), Refused)
        for _ in range(1500):
            event = chance.random()
            if event < 0.4 and len(asked) < 15:
                client = clients.pop() if clients else Wire(primary.port)
                client.id = client.ask("CLIENT ID")
                place = f"{chance.choice(MIX_PRIO)} {chance.choice(MIX_FOR)}"
                wanted = f"LB.PICK web {chance.choice(MIX_WANTED)} BLOCK {chance.randrange(60)} {place}"
                client.send(pack(words(wanted)))
                asked[client.id] = client
            elif event < 0.75:
                held = wire.ask("LB.LEASES web")
                if held:
                    wire.ask([b"LB.DONE", b"web", chance.choice(held)[1]])
            elif event < 0.95:
                for command in chance.choice(MIX_OPERATOR):
                    assert not isinstance(answer := wire.ask(command), Refused), answer
            elif asked:
                gone = chance.choice([*asked])
                how = chance.choice(["KILL ID {}", "UNBLOCK {} ERROR", "UNBLOCK {} TIMEOUT"])
                wire.ask(f"CLIENT {how.format(gone)}")
                killed |= {gone} if "KILL" in how else set()
            for id, client in list(asked.items()):
                if select.select([client._socket], [], [], 0)[0]:
                    del asked[id]
                    given = set()
                    with contextlib.suppress(AssertionError if id in killed else ()):
                        answer = client.read()
                        full += isinstance(answer, Refused) and answer.code == "QUEUEFULL"
                        given = {word for word in flat(answer) if b"-" in word}
                    clients += [client] if id not in killed else []
                    assert not given & ids
                    ids |= given
            busiest = max(busiest, len(wire.ask("LB.LEASES web BACKEND a")))
        assert busiest == 2 and len(ids) > 100 and full > 0
        for client in asked:
            wire.ask(f"CLIENT KILL ID {client}")
        wire.ask("DEL other")
        # Then nothing is due any more.
        wire.ask("LB.LIMIT web BACKEND c RATE 0 0")
        eventually(lambda: leases(wire, "web") == 0)
        with Wire(replica.port) as other:
            digest = "DEBUG DIGEST-VALUE web"
            eventually(lambda: other.ask(digest) == wire.ask(digest))
            last = other.ask(digest)
    primary.kill()
    again = new_server(folder=primary.folder, module_args=["clock", "manual"], **AOF)
    with Wire(again.port) as wire:
        assert wire.ask(digest) == last


MIX_BEGINS = ["LB.ADD web a 5 b 3 c 1", "LB.LIMIT web BACKEND a MAX 2", "LB.LIMIT web BACKEND b MAX 1"]
MIX_BEGINS += ["LB.LIMIT web BACKEND c RATE 1 20 BURST 2 TIER 1", "LB.LIMIT web MAX 4"]
MIX_WANTED = [
    "LEASE 300",
    "lc LEASE 60",
    "p2c LEASE 5 OWNER me",
    "COUNT 3 LEASE 200",
    "random",
    "wrandom COUNT 2",
]
MIX_WANTED += ["rr COUNT 3 DISTINCT LEASE 100 OWNER me", "EXCLUDE 1 a LEASE 200", "EXCLUDE 2 a b LEASE 90"]
MIX_PRIO = ["", "", "PRIO 0", "PRIO 3", "PRIO 255"]
MIX_FOR = ["", "FOR a", "FOR b", "FOR b"]
MIX_OPERATOR = [
    ["LB.QUEUE web ORDER fair"],
    ["LB.QUEUE web ORDER fifo MAX 2"],
    ["LB.QUEUE web MAX 12"],
    ["LB.RELEASE web OWNER me"],
    ["LB.STATE web a down", "LB.STATE web a up"],
    ["LB.STATE web b drain", "LB.LIMIT web MAX 1", "LB.STATE web b up", "LB.LIMIT web MAX 4"],
    ["LB.WEIGHT web c 0", "LB.ADD web d 2", "LB.WEIGHT web c 1", "LB.REM web d"],
    ["RENAME web other", "RENAME other web"],
    ["COPY web other REPLACE", "RENAME other web"],
    ["MULTI", "LB.RELEASE web OWNER me", "LB.PICK web LEASE 40", "EXEC"],
    ["MULTI", "LB.LIMIT web MAX 0", "LB.LIMIT web MAX 4", "EXEC"],
]


def flat(answer):
    """The words of a reply."""
    if isinstance(answer, list):
        return [word for part in answer for word in flat(part)]
    return [answer] if isinstance(answer, bytes) else []


def test_who_got_nothing_is_not_in_the_stream(new_server):
    server = new_server(**AOF)
    with Wire(server.port) as wire:
        take(wire)
        before = stream(server)
        assert wire.ask("LB.PICK web BLOCK 30") is None
        assert wire.ask("LB.PICK web LEASE 9 BLOCK 30") is None
        assert wire.ask("LB.PICK missing LEASE 9 BLOCK 30") is None
        waiter = Waiter(server)
        wire.ask(f"CLIENT KILL ID {waiter.id}")
    assert {command[0] for command in stream(server)[len(before) :]} <= {b"LB.TICK"}


# Who is gone


def test_who_is_gone_is_passed_over(server, web):
    killed, closed, stays = Waiter(server), Waiter(server), Waiter(server)
    assert web.ask(f"CLIENT KILL ID {killed.id}") == 1
    closed._socket.close()
    closed._file.close()
    eventually(lambda: blocked(web) == 1)
    web.ask(f"LB.DONE web {web.taken}")
    assert stays.read()[0] == b"a"
    assert leases(web, "web") == 1


@pytest.mark.parametrize("count", ["", "COUNT 3 "])
def test_the_lease_of_who_was_killed_before_its_reply_is_given_back(server, web, count):
    web.ask("LB.LIMIT web BACKEND a MAX 0")
    web.ask("LB.STATE web a drain")
    gone, stays = (
        Waiter(server, f"LB.PICK web {count}LEASE 60000 BLOCK 0"),
        Waiter(server, "LB.PICK none BLOCK 0"),
    )
    web.ask("MULTI")
    web.ask("LB.STATE web a up")
    web.ask(f"CLIENT KILL ID {gone.id}")
    assert web.ask("EXEC") == ["OK", 1]
    eventually(lambda: leases(web, "web") == 1)
    assert stays.waits()


def test_a_lease_given_back_wakes_the_next_one_and_is_in_the_stream(new_server):
    server = new_server(**AOF)
    with Wire(server.port) as wire:
        take(wire)
        gone, second = Waiter(server), Waiter(server)
        wire.ask("MULTI")
        wire.ask(f"LB.DONE web {wire.taken}")
        wire.ask(f"CLIENT KILL ID {gone.id}")
        wire.ask("EXEC")
        name, held = second.read()
        assert name == b"a"
        digest = wire.ask("DEBUG DIGEST-VALUE web")
        ended = [c[2] for c in stream(server) if c[0] == b"LB.DONE"]
        assert len(ended) == 2 and held not in ended
    server.restart()
    with Wire(server.port) as wire:
        assert wire.ask("DEBUG DIGEST-VALUE web") == digest


def test_the_lease_of_a_killed_waiter_is_given_back_wherever_its_pool_is_now(server, web, binary):
    if binary.kind == "valkey" and binary.version < (9, 1, 2):
        pytest.skip("on Valkey 8.1 to 9.1.1 the module does not listen to events")
    gone = Waiter(server)
    web.ask("LB.ADD another x")
    for command in [
        "MULTI",
        f"LB.DONE web {web.taken}",
        "RENAME web other",
        "MOVE other 3",
        "RENAME another web",
        "SWAPDB 3 4",
        f"CLIENT KILL ID {gone.id}",
    ]:
        web.ask(command)
    assert web.ask("EXEC") == [1, "OK", 1, "OK", "OK", 1]
    web.ask("SELECT 4")
    eventually(lambda: leases(web, "other") == 0)


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
def test_client_kill_by_type(server, web, kind):
    waiters = [Waiter(server) for _ in range(3)]
    web.ask(f"CLIENT KILL TYPE {kind} SKIPME yes")
    if kind == "normal":
        eventually(lambda: blocked(web) == 0)
        assert web.ask(f"LB.DONE web {web.taken}") == 1
        assert web.ask("LB.PICK web") == b"a"
    else:
        assert all(waiter.waits() for waiter in waiters)


def test_client_unblock(server, web):
    timed, failed, stays = Waiter(server), Waiter(server), Waiter(server)
    counted = Waiter(server, "LB.PICK web COUNT 2 BLOCK 0")
    for waiter in timed, counted:
        assert web.ask(f"CLIENT UNBLOCK {waiter.id} TIMEOUT") == 1
    assert timed.read() is None
    assert counted.read() == []
    assert web.ask(f"CLIENT UNBLOCK {failed.id} ERROR") == 1
    assert failed.read().code == "UNBLOCKED"
    web.ask(f"LB.DONE web {web.taken}")
    assert stays.read()[0] == b"a"
    for waiter in timed, failed:
        assert waiter.ask("PING") == "PONG"


def test_client_unblock_of_who_was_just_served_gives_the_lease_back(server, web):
    waiter = Waiter(server)
    web.ask("MULTI")
    web.ask(f"LB.DONE web {web.taken}")
    web.ask(f"CLIENT UNBLOCK {waiter.id} ERROR")
    assert web.ask("EXEC") == [1, 1]
    assert waiter.read().code == "UNBLOCKED"
    eventually(lambda: leases(web, "web") == 0)


def test_who_was_served_at_its_deadline_hears_of_it(server, web):
    """The server's own deadlines, up to 7.0, would leave it without any answer."""
    with Wire(server.port) as waiter:
        for command in "MULTI", "LB.QUEUE web", f"LB.DONE web {web.taken}", "DEBUG SLEEP 0.7":
            web.ask(command)
        # The server reads both in one go: so the wait is not over before it is served.
        server.pause()
        waiter.send(pack(words("LB.PICK web LEASE 60000 BLOCK 500")))
        web.send(pack([b"EXEC"]))
        server.go_on()
        queue, *_ = web.read()
        assert dict_of(queue)[b"waiting"] == 1
        assert waiter.read()[0] == b"a"
        assert waiter.ask("PING") == "PONG"


# What can happen to a key


GONE = {
    "DEL": ["DEL web"],
    "UNLINK": ["UNLINK web"],
    "FLUSHALL": ["FLUSHALL"],
    "FLUSHALL ASYNC": ["FLUSHALL ASYNC"],
    "FLUSHDB": ["FLUSHDB"],
    "EXPIRE": ["PEXPIRE web 1"],
    "RENAME": ["RENAME web other"],
    "MOVE": ["MOVE web 1"],
    "SWAPDB": ["SWAPDB 0 1"],
    "another type": ["SET web x", "DEL web"],
    "another pool": ["LB.LIMIT other MAX 1", "LB.ADD other z 0", "RENAME other web", "DEL web"],
    "LB.REM": ["LB.REM web a"],
}


@pytest.mark.parametrize("commands", GONE.values(), ids=GONE)
def test_who_waits_for_a_key_that_is_gone_waits_for_its_return(server, web, commands):
    waiter, second = Waiter(server), Waiter(server, "LB.PICK web BLOCK 100")
    for command in commands:
        assert not isinstance(web.ask(command), Refused)
        time.sleep(0.06)
        assert waiter.waits()
    assert second.read() is None
    web.ask("LB.ADD web b")
    assert waiter.read()[0] == b"b"


@pytest.mark.parametrize("how", ["RELOAD", "LOADAOF"])
def test_what_is_loaded_anew_wakes_too(new_server, how):
    server = new_server(appendonly="yes")
    with Wire(server.port) as wire:
        take(wire)
        waiter = Waiter(server)
        wire.ask(f"DEBUG {how}")
        assert waiter.waits()
        wire.ask(f"LB.DONE web {wire.taken}")
        assert waiter.read()[0] == b"a"


def test_a_server_that_becomes_a_replica_sends_all_away(new_server):
    primary, other = new_server(), new_server()
    with Wire(other.port) as wire:
        take(wire)
        waiters = [Waiter(other) for _ in range(3)]
        assert wire.ask(f"REPLICAOF 127.0.0.1 {primary.port}") == "OK"
        assert {waiter.read().code for waiter in waiters} == {"UNBLOCKED"}
        eventually(lambda: is_linked(other))
        assert wire.ask(NEVER).code == "READONLY"
        wire.ask("REPLICAOF NO ONE")
        assert blocked(wire) == 0
        take(wire)
        waiter = Waiter(other)
        wire.ask(f"LB.DONE web {wire.taken}")
        assert waiter.read()[0] == b"a"


def test_a_server_shuts_down_with_waiters(new_server):
    server = new_server(appendonly="yes")
    with Wire(server.port) as wire:
        take(wire)
        waiters = [Waiter(server) for _ in range(3)]
        wire.ask("MULTI")
        wire.ask(f"LB.DONE web {wire.taken}")
        wire.ask("LB.LIMIT web BACKEND a MAX 2")
        wire.ask(f"CLIENT KILL ID {waiters[0].id}")
        wire.ask("EXEC")
    server.stop()
    assert not server.crashed()
    server.start()
    with Wire(server.port) as wire:
        assert wire.ask("LB.PICK web BLOCK 1") in (None, b"a")


def test_a_full_server_grants_waiters_no_lease_and_serves_the_others(server, web):
    first, second, third = (
        Waiter(server),
        Waiter(server, "LB.PICK web EXCLUDE 1 x BLOCK 0"),
        Waiter(server, "LB.PICK web BLOCK 0"),
    )
    try:
        web.ask("CONFIG SET maxmemory 1")
        assert web.ask(NEVER).code == "OOM"
        # Time goes on: the lease ends by itself.
        assert web.ask(f"LB.RENEW web {web.taken} 50") == 1
        assert second.read() == third.read() == b"a"
        assert leases(web, "web") == 0
        assert first.waits()
    finally:
        web.ask("CONFIG SET maxmemory 0")
    assert first.read()[0] == b"a"


COMES = {
    "RENAME": ["LB.ADD spare b", "RENAME spare {key}"],
    "COPY": ["LB.ADD spare b", "COPY spare {key}"],
    "RESTORE": ["RESTORE {key} 0 {dump}"],
}


@pytest.mark.parametrize("commands", COMES.values(), ids=COMES)
def test_a_pool_that_comes_to_one_of_many_keys_at_which_clients_wait_is_seen_at_once(server, commands):
    """The timer looks at some keys at a time: 3,000 took it 3 s on a server that tells nothing of RENAME."""
    with Wire(server.port) as wire:
        wire.ask("LB.ADD spare b")
        dump = wire.ask("DUMP spare")
        clients = [Wire(server.port) for _ in range(3000)]
        for number, client in enumerate(clients):
            client.send(pack(words(f"LB.PICK key-{number} BLOCK 0")))
        eventually(lambda: blocked(wire) == len(clients))
        late = 0
        for number in range(0, 3000, 375):
            for command in commands:
                made = [
                    word.replace(b"{key}", b"key-%d" % number).replace(b"{dump}", dump)
                    for word in words(command)
                ]
                assert not isinstance(wire.ask(made), Refused)
            begun = time.monotonic()
            assert clients[number].read() == b"b"
            late += time.monotonic() - begun > 1
        assert late <= 2, "more often than a machine stands still"
        for client in clients:
            client.__exit__()


# A cluster


def cluster(new_server):
    """Two nodes that know of each other; the first one has all slots."""
    nodes = [new_server(cluster_enabled="yes", cluster_node_timeout=5000) for _ in range(2)]
    here, there = [Wire(node.port) for node in nodes]
    # Nodes that find out that their epochs are equal take greater ones, by which an old claim to a slot wins.
    slots(here, "SET-CONFIG-EPOCH", 1)
    slots(there, "SET-CONFIG-EPOCH", 2)
    slots(here, "ADDSLOTS", *range(16384))
    slots(here, "MEET", "127.0.0.1", nodes[1].port)
    for wire in here, there:
        eventually(lambda wire=wire: b"cluster_state:ok" in slots(wire, "INFO"))
    eventually(lambda: slots(there, "NODES").count(b"connected 0-16383") == 1)
    return nodes, here, there


def test_who_waits_for_a_key_whose_slot_moves_is_told_where_it_is(new_server):
    nodes, here, there = cluster(new_server)
    take(here)
    slot = slots(here, "KEYSLOT", "web")
    moved = [Waiter(nodes[0]), Waiter(nodes[0], "LB.PICK web COUNT 2 BLOCK 60000")]
    stays = Waiter(nodes[0], "LB.PICK elsewhere BLOCK 0")
    names = [slots(wire, "MYID").decode() for wire in (here, there)]
    slots(there, "SETSLOT", slot, "IMPORTING", names[0])
    slots(here, "SETSLOT", slot, "MIGRATING", names[1])
    assert here.ask(f"MIGRATE 127.0.0.1 {nodes[1].port} web 0 10000") == "OK"
    time.sleep(0.2)
    assert all(waiter.waits() for waiter in moved), "as with BLPOP, not before the slot is the other's"
    for wire in there, here:
        slots(wire, "SETSLOT", slot, "NODE", names[1])
    for waiter in moved:
        assert waiter.read() == f"MOVED {slot} 127.0.0.1:{nodes[1].port}"
    assert stays.waits()
    there.ask(f"LB.DONE web {here.taken}")
    assert there.ask("LB.PICK web BLOCK 0") == b"a"


@pytest.mark.needs("valkey 9.0", "CLUSTER MIGRATESLOTS")
def test_so_is_who_waits_when_the_slot_moves_as_one(new_server):
    nodes, here, there = cluster(new_server)
    take(here)
    slot = slots(here, "KEYSLOT", "web")
    moved, stays = Waiter(nodes[0]), Waiter(nodes[0], "LB.PICK elsewhere BLOCK 0")
    target = slots(there, "MYID").decode()
    slots(here, "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target)
    assert moved.read() == f"MOVED {slot} 127.0.0.1:{nodes[1].port}"
    assert stays.waits()
    assert there.ask(f"LB.DONE web {here.taken}") == 1
    assert there.ask("LB.PICK web BLOCK 0") == b"a"


# How many


def load(server, commands, seconds=60):
    """So many clients, each of which waits; some may have waited long enough already."""
    with Wire(server.port) as wire:
        before, stack = blocked(wire), contextlib.ExitStack()
        waiters = [stack.enter_context(Wire(server.port)) for _ in commands]
        for waiter, command in zip(waiters, commands, strict=True):
            waiter.send(pack(words(command)))
        eventually(lambda: blocked(wire) == before + len(waiters) or any_ready(waiters), seconds)
    return stack, waiters


def any_ready(waiters):
    """Whether one of them has an answer."""
    poll = select.poll()
    for waiter in waiters:
        poll.register(waiter, select.POLLIN)
    return bool(poll.poll(0))


@pytest.mark.parametrize("how", ["time out", "CLIENT KILL", "CLIENT UNBLOCK", "served"])
def test_no_wait_leaves_anything_behind(server, web, how):
    def connected():
        return server.client().info("clients")["connected_clients"]

    usual = connected()

    def wait(times):
        for _ in range(times):
            if how == "time out":
                stack, waiters = load(
                    server, ["LB.PICK web EXCLUDE 2 x y LEASE 60000 OWNER me BLOCK 100"] * 100
                )
                assert {waiter.read() for waiter in waiters} == {None}
            else:
                stack, waiters = load(
                    server, ["LB.PICK web EXCLUDE 2 x y LEASE 60000 OWNER me BLOCK 0"] * 100
                )
            if how == "CLIENT KILL":
                web.ask("CLIENT KILL TYPE normal SKIPME yes")
            elif how == "CLIENT UNBLOCK":
                for client in web.ask("CLIENT LIST").decode().splitlines():
                    if "cmd=lb.pick" in client.lower():
                        web.ask(f"CLIENT UNBLOCK {client.split()[0].removeprefix('id=')}")
            elif how == "served":
                web.ask("LB.LIMIT web BACKEND a MAX 0")
                assert all(waiter.read()[0] == b"a" for waiter in waiters)
                web.ask("LB.RELEASE web OWNER me")
                web.ask("LB.LIMIT web BACKEND a MAX 1")
            stack.close()
            eventually(lambda: blocked(web) == 0)
            eventually(lambda: connected() <= usual)

    wait(2)
    before = server.client().info("memory")["used_memory"]
    wait(5)
    # 500 waits that left 100 bytes each would be more.
    assert server.client().info("memory")["used_memory"] - before < 50_000


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(missing()), reason=str(missing()))
@pytest.mark.parametrize("excluded", ["EXCLUDE 1 b", "EXCLUDE 3 b x{n} y{n}"], ids=["alike", "different"])
@pytest.mark.parametrize("order", ["fifo", "fair"])
def test_what_a_command_costs_does_not_grow_with_the_waiters(binary, request, order, excluded):
    """To end a lease, which serves the next one; and to pick `b`, which all who wait pass over."""
    server = Callgrind(binary, module(), maxclients=11_000, timeout=0)
    request.addfinalizer(server.close)
    server.start()
    costs, stacks = {}, []
    with Wire(server.port) as wire:
        take(wire)
        wire.ask("LB.ADD web b")
        wire.ask(f"LB.QUEUE web ORDER {order}")
        for before, waiters in (0, 20), (20, 10_000):
            for first in range(before, waiters, 1000):
                numbers = range(first, min(first + 1000, waiters))
                wanted = [(excluded.format(n=n), n % 1000) for n in numbers]
                commands = [
                    f"LB.PICK web {words} LEASE 60000000 BLOCK 0 FOR {name}" for words, name in wanted
                ]
                stacks.append(load(server, commands, 300)[0])

            def done():
                held = wire.ask("LB.LEASES web COUNT 1")[0][1].decode()
                return server._instructions(wire, lambda: wire.ask(f"LB.DONE web {held}"))

            costs[waiters] = statistics.median(done() for _ in range(7)), server.cost(["LB.PICK web"], 200)
    print(excluded, costs)
    for few, many in zip(costs[20], costs[10_000], strict=True):
        assert many < 2 * few
    for stack in stacks:
        stack.close()
