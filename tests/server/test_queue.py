"""The place of a waiter: PRIO and FOR of LB.PICK … BLOCK, and LB.QUEUE."""

import select

import pytest

from replication import in_step, is_linked, replica_of
from server import eventually
from waiter import Waiter, blocked, lease
from wire import Refused, Wire, dict_of, pack, words


@pytest.fixture
def web(server):
    """A client, and a pool `web` with one backend, which is taken."""
    with Wire(server.port) as wire:
        wire.ask("LB.ADD web a")
        wire.ask("LB.LIMIT web BACKEND a MAX 1")
        wire.taken = lease(wire.ask("LB.PICK web LEASE 600000"))
        yield wire


def wait(server, place="", millis=0):
    return Waiter(server, f"LB.PICK web LEASE 600000 BLOCK {millis} {place}")


def served(web, waiters):
    """Frees the backend as often as clients wait; answers their places in the order of service."""
    order, left = [], dict(enumerate(waiters))
    while left:
        assert web.ask(f"LB.DONE web {web.taken}") == 1
        eventually(lambda: any(not waiter.waits() for waiter in left.values()))
        (place,) = [place for place, waiter in left.items() if not waiter.waits()]
        web.taken = lease(left.pop(place).read())
        order.append(place)
    assert blocked(web) == 0
    return order


def queue(web):
    told = dict_of(web.ask("LB.QUEUE web"))
    return told[b"max"], told[b"order"].decode(), told[b"waiting"]


# Numbers


def test_waiters_of_a_lower_number_are_served_first(server, web):
    numbers = ["PRIO 5", "PRIO 255", "", "PRIO 5", "PRIO 0", "PRIO 1"]
    waiters = [wait(server, number) for number in numbers]
    assert served(web, waiters) == [2, 4, 5, 0, 3, 1]


# What a newcomer is, the number of who waits, and whether the newcomer passes.
NEWCOMERS = [
    ("LB.PICK web", 0, False),
    ("LB.PICK web", 1, True),
    ("LB.PICK web LEASE 600000", 0, False),
    ("LB.PICK web LEASE 600000", 1, True),
    ("LB.PICK web COUNT 1 LEASE 600000", 1, True),
    ("LB.PICK web BLOCK 1 PRIO 3", 2, False),
    ("LB.PICK web BLOCK 1 PRIO 3", 3, False),
    ("LB.PICK web BLOCK 1 PRIO 3", 4, True),
]


@pytest.mark.parametrize(("newcomer", "number", "passes"), NEWCOMERS)
def test_a_newcomer_passes_waiters_of_higher_numbers_alone(server, web, newcomer, number, passes):
    """The pool comes with nothing that serves who waits before the newcomer is there."""
    waiter = wait(server, f"PRIO {number}")
    web.ask("LB.ADD other b")
    web.ask("LB.LIMIT other BACKEND b MAX 1")
    web.ask("LB.LIMIT other RATE 1 600000")
    for command in "MULTI", "RENAME other web", newcomer:
        web.ask(command)
    _, answer = web.ask("EXEC")
    assert bool(answer) == passes
    if passes:
        web.ask("LB.CARD web")
        assert waiter.waits()
    else:
        assert waiter.read()[0] == b"b"


@pytest.mark.parametrize(("number", "passes"), [(0, False), (1, True)])
def test_so_it_does_when_time_has_freed_what_it_takes(server, web, number, passes):
    waiter = wait(server, f"PRIO {number}")
    # No timer runs meanwhile: the newcomer's own tick ends the lease.
    commands = f"LB.RENEW web {web.taken} 40", "DEBUG SLEEP 0.1", "LB.PICK web LEASE 600000"
    renewed, slept, picked = web.ask_all(*commands)
    assert (renewed, slept, bool(picked)) == (1, "OK", passes)
    assert waiter.waits() == passes


# Names


def test_names_take_turns(server, web):
    web.ask("LB.QUEUE web ORDER fair")
    places = ["FOR a"] * 5 + ["FOR b"] * 2 + [""] * 3 + ["FOR a PRIO 0", "FOR b PRIO 3", "FOR c PRIO 3"]
    waiters = [wait(server, place) for place in places]
    #                                        a  b  -  a  b  -  a  -  a  a   a   b   c
    assert served(web, waiters) == [0, 5, 7, 1, 6, 8, 2, 9, 3, 4, 10, 11, 12]


def test_a_pick_is_a_turn_whatever_its_count(server, web):
    web.ask("LB.QUEUE web ORDER fair")
    web.ask("LB.LIMIT web BACKEND a MAX 3")
    held = [lease(web.ask("LB.PICK web LEASE 600000")) for _ in range(2)]
    many = [Waiter(server, "LB.PICK web COUNT 3 LEASE 600000 BLOCK 0 FOR a") for _ in range(2)]
    one = wait(server, "FOR b")
    for id in [web.taken, *held]:
        web.ask(f"LB.DONE web {id}")
    assert len(many[0].read()) == len(many[1].read()) == 1
    assert one.read()[0] == b"a"


def test_the_order_changes_while_clients_wait(server, web):
    waiters = [wait(server, f"FOR {name}") for name in "aaaabb"]
    web.ask("LB.QUEUE web ORDER fair")
    assert blocked(web) == 6
    web.taken, first = None, web.taken
    web.ask(f"LB.DONE web {first}")
    web.taken = lease(waiters[0].read())
    web.ask(f"LB.DONE web {web.taken}")
    web.taken = lease(waiters[4].read())
    web.ask("LB.QUEUE web ORDER fifo")
    left = [waiters[place] for place in (1, 2, 3, 5)]
    assert served(web, left) == [0, 1, 2, 3]


MOVES = {
    "RENAME": ["RENAME other web"],
    "COPY": ["COPY other web REPLACE"],
    "SWAPDB": ["SELECT 1", "COPY other web DB 0", "SELECT 0"],
    "RESTORE": ["RESTORE"],
}


@pytest.mark.parametrize("commands", MOVES.values(), ids=MOVES)
def test_waiters_stand_by_the_settings_of_whatever_pool_comes(server, web, commands):
    for db in 0, 1:
        web.ask(f"SELECT {db}")
        web.ask("LB.ADD other a")
        web.ask("LB.LIMIT other BACKEND a MAX 1")
        web.ask("LB.QUEUE other MAX 3 ORDER fair")
    web.ask("SELECT 0")
    waiters = [wait(server, place) for place in ["FOR a", "FOR a", "FOR b", "PRIO 1 FOR b"]]
    if "SELECT 1" in commands:
        web.ask("DEL web")
    for command in commands:
        if command == "RESTORE":
            command = [b"RESTORE", b"web", b"0", web.ask("DUMP other"), b"REPLACE"]
        assert not isinstance(web.ask(command), Refused)
    web.taken = lease(waiters.pop(0).read())
    assert queue(web) == (3, "fair", 3)
    assert served(web, waiters) == [1, 0, 2]


# The most


def test_who_finds_the_queue_full_is_told_at_once(server, web):
    assert web.ask("LB.QUEUE web MAX 100") == "OK"
    waiters = [Wire(server.port) for _ in range(100)]
    for waiter in waiters:
        waiter.send(pack(words("LB.PICK web BLOCK 0")))
    eventually(lambda: blocked(web) == 100)
    with Wire(server.port) as late:
        answer = late.ask("LB.PICK web LEASE 600000 BLOCK 60000")
        assert answer.code == "QUEUEFULL" and "100" in answer
        assert late.ask("LB.PICK web EXCLUDE 1 a BLOCK 60000 PRIO 9").code == "QUEUEFULL"
        # Whoever need not wait is not concerned.
        assert late.ask("LB.PICK web") is None
        web.ask("LB.QUEUE web MAX 101")
        late.send(pack(words("LB.PICK web BLOCK 0")))
        eventually(lambda: blocked(web) == 101)
        web.ask(f"LB.DONE web {web.taken}")
        assert {waiter.read() for waiter in [*waiters, late]} == {b"a"}
    for waiter in waiters:
        waiter.__exit__()


def test_the_last_one_of_the_highest_number_makes_room(server, web):
    web.ask("LB.QUEUE web MAX 3")
    waiters = [wait(server, place) for place in ["PRIO 7", "PRIO 2", "PRIO 7"]]
    refused = dict_of(web.ask("LB.INFO web"))[b"refused"]
    with Wire(server.port) as late:
        assert late.ask("LB.PICK web BLOCK 0 PRIO 7").code == "QUEUEFULL"
        late.send(pack(words("LB.PICK web LEASE 600000 BLOCK 0 PRIO 6")))
        assert waiters[2].read().code == "QUEUEFULL"
        assert waiters[2].ask("PING") == "PONG"
        first = Wire(server.port)
        first.send(pack(words("LB.PICK web LEASE 600000 BLOCK 0")))
        assert waiters[0].read().code == "QUEUEFULL"
        info = dict_of(web.ask("LB.INFO web"))
        assert (info[b"waiting"], info[b"refused"]) == (3, refused + 3)
        for waiter in first, waiters[1], late:
            web.ask(f"LB.DONE web {web.taken}")
            web.taken = lease(waiter.read())
        first.__exit__()


def test_a_tenant_that_fills_the_queue_shuts_out_no_other(server, web):
    """Under `fair` the last one of all is the newest one of the name with the most waiters."""
    web.ask("LB.QUEUE web MAX 4 ORDER fair")
    flood = [wait(server, "FOR flood") for _ in range(4)]
    other = Wire(server.port)
    other.send(pack(words("LB.PICK web LEASE 600000 BLOCK 0 FOR other")))
    assert flood[3].read().code == "QUEUEFULL"
    with Wire(server.port) as late:
        assert late.ask("LB.PICK web BLOCK 0 FOR flood").code == "QUEUEFULL"
    web.ask(f"LB.DONE web {web.taken}")
    web.ask(f"LB.DONE web {lease(flood[0].read())}")
    web.ask(f"LB.DONE web {lease(other.read())}")
    assert flood[1].read()[0] == b"a"
    other.__exit__()


def test_a_lower_most_sends_nobody_away(server, web):
    """Nobody is lost, and nobody is served twice, while operators change it under load."""
    places = [f"PRIO {number % 3} FOR {number % 5}" for number in range(40)]
    waiters = [wait(server, place) for place in places]
    assert web.ask("LB.QUEUE web MAX 10") == "OK"
    assert queue(web) == (10, "fifo", 40)
    ids, full = set(), 0
    for step in range(40):
        web.ask(f"LB.QUEUE web MAX {step % 7} ORDER {['fifo', 'fair'][step % 2]}")
        web.ask("LB.QUEUE web MAX 1")
        with Wire(server.port) as late:
            answer = late.ask("LB.PICK web BLOCK 1 PRIO 3")
            full += isinstance(answer, Refused) and answer.code == "QUEUEFULL"
        web.ask(f"LB.DONE web {web.taken}")
        eventually(lambda: any(not waiter.waits() for waiter in waiters))
        (ready,) = [waiter for waiter in waiters if not waiter.waits()]
        waiters.remove(ready)
        web.taken = lease(ready.read())
        ids.add(web.taken)
    assert len(ids) == 40 and full >= 38
    assert blocked(web) == 0


# What is kept, and shown


def test_a_queue_shows_who_waits(server, web):
    assert queue(web) == (0, "fifo", 0)
    waiter = wait(server)
    eventually(lambda: dict_of(web.ask("LB.QUEUE web"))[b"oldest-wait-ms"] >= 20)
    assert queue(web) == (0, "fifo", 1)
    web.ask("LB.QUEUE web ORDER fair MAX 5")
    assert queue(web) == (5, "fair", 1)
    web.ask(f"LB.DONE web {web.taken}")
    assert waiter.read()[0] == b"a"
    # Clients can wait where there is no pool.
    with Waiter(server, "LB.PICK none BLOCK 0"):
        assert dict_of(web.ask("LB.QUEUE none"))[b"waiting"] == 1


def test_the_settings_are_replicated_and_saved(new_server):
    primary = new_server(appendonly="yes", notify_keyspace_events="KEA")
    replica = new_server(**replica_of(primary))
    eventually(lambda: is_linked(replica))
    with Wire(primary.port) as wire, Wire(primary.port) as heard:
        heard.ask("PSUBSCRIBE __keyspace@0__:web")
        wire.ask("LB.ADD web a")
        wire.ask("LB.QUEUE web MAX 7 ORDER fair")
        wire.ask("LB.QUEUE web MAX 7")  # This changes nothing.
        events = [heard.read()[3] for _ in range(2)]
        assert events == [b"lb.add", b"lb.queue"]
        wire.ask("LB.REM web a")
        in_step([primary, replica])
        digest = wire.ask("DEBUG DIGEST-VALUE web")
    with Wire(replica.port) as other:
        assert other.ask("DEBUG DIGEST-VALUE web") == digest
        assert other.ask("LB.QUEUE web").code == "READONLY"
    primary.restart()
    with Wire(primary.port) as wire:
        assert queue(wire) == (7, "fair", 0)


def test_a_full_server_takes_settings_back_and_no_new_ones(server, web):
    web.ask("LB.QUEUE web MAX 7 ORDER fair")
    try:
        web.ask("CONFIG SET maxmemory 1")
        assert web.ask("LB.QUEUE web MAX 8").code == web.ask("LB.QUEUE web ORDER fair").code == "OOM"
        assert web.ask("LB.QUEUE web MAX 0 ORDER fifo") == "OK"
        assert queue(web) == (0, "fifo", 0)
    finally:
        web.ask("CONFIG SET maxmemory 0")


# The flood


@pytest.mark.once("it counts turns, which depend on no server")
def test_a_flood_delays_the_others_by_a_turn_for_each_of_theirs(server, web):
    """Counted in turns. The core tests the same with every size (src/server/queue/naive.rs)."""

    def turns_waited(clients, turns):
        """The turns that each pick of `b` and `c` waited; each client asks again when it was served."""
        waiting, since, waits = {}, {}, []

        def ask(wire, name, turn):
            before = blocked(web)
            wire.send(pack(words(f"LB.PICK web LEASE 600000 BLOCK 0 FOR {name}")))
            eventually(lambda: blocked(web) == before + 1)
            waiting[wire._socket.fileno()], since[wire] = (wire, name), turn

        for name in clients:
            ask(Wire(server.port), name, 0)
        for turn in range(turns):
            web.ask(f"LB.DONE web {web.taken}")
            wire, name = next_ready(waiting)
            web.taken = lease(wire.read())
            if name != "flood":
                waits.append(turn - since[wire])
            ask(wire, name, turn)
        for wire, _ in waiting.values():
            wire.__exit__()
        eventually(lambda: blocked(web) == 0)
        return sorted(waits)

    web.ask("LB.QUEUE web ORDER fair")
    calm = turns_waited(["b", "c"] * 3, 100)
    flooded = turns_waited(["flood"] * 1000 + ["b", "c"] * 3, 150)
    assert len(flooded) == 100
    assert flooded[98] <= 2 * calm[98]


def next_ready(waiting):
    """The one that has an answer."""
    poll = select.poll()
    for number in waiting:
        poll.register(number, select.POLLIN)
    ((number, _),) = poll.poll(60_000)
    return waiting.pop(number)
