"""nginx with the two files that its README tells a reader to copy, as a client and as its servers see it."""

import asyncio
import os
import random
import re
import signal
import time
from collections import Counter

import pytest

from nginx import FILES, Client, Nginx, Reply, internet, sums_of
from server import eventually

pytestmark = pytest.mark.once("nginx sends the same commands to all servers")

LONG = os.environ.get("REDIS_LB_LONG") == "1"
BUSY = Reply(503, body=b"busy")


@pytest.fixture
def net():
    with internet() as net:
        yield net


@pytest.fixture
def serve(server, net):
    """Starts nginx before servers that reply so; answers all of them. It logs only the `expected` errors."""
    started = []

    def start(*replies, at=server, expected="$^", **settings):
        backends = [net.backend(reply) for reply in replies]
        for backend in backends:
            at.client().execute_command("LB.ADD web", backend.name, 1)
        nginx = Nginx(at.port, **settings).__enter__()
        started.append((nginx, expected))
        return nginx, *backends

    yield start
    errors = []
    for nginx, expected in started:
        errors += [line for line in nginx.errors() if not re.search(expected, line)]
        nginx.__exit__()
    assert errors == []


def said(*backends):
    """How often these servers said what."""
    return sum((backend.said for backend in backends), Counter())


def ended(client, done, **others):
    """Whether so many leases were ended, and none is open or ended otherwise."""
    return sums_of(client) == {"picks": done, "leases": 0, "done": done, "failures": 0, "expired": 0} | others


def test_lb_lua_is_short(binary):
    assert len((FILES / "lb.lua").read_text().splitlines()) < 120


def test_shares(serve, net, client):
    nginx, *backends = serve(None, None, None)
    for backend, weight in zip(backends, (5, 3, 2), strict=True):
        client.execute_command("LB.WEIGHT web", backend.name, weight)
    asked = [net.ask(nginx).body.decode() for _ in range(20)]
    assert [asked.count(backend.name) for backend in backends] == [10, 6, 4]
    eventually(lambda: ended(client, 20))


def test_a_request_is_tried_on_three_servers(serve, net, client):
    nginx, busy, closed, well = serve(BUSY, Reply(None), None)
    answers = [net.ask(nginx) for _ in range(6)]
    assert [answer.body.decode() for answer in answers] == [well.name] * 6
    failures = said(busy, closed).total()
    assert said(busy)[503] >= 2 and said(closed)[None] >= 2
    eventually(lambda: ended(client, 6 + failures, failures=failures))


def test_the_answer_of_the_last_server_passes(serve, net, client):
    nginx, *backends = serve(*[BUSY] * 4)
    answer = net.ask(nginx)
    assert (answer.status, answer.body, said(*backends)) == (503, b"busy", {503: 3})
    eventually(lambda: ended(client, 3, failures=3))


def test_with_fewer_servers_than_attempts_the_last_status_passes(serve, net, client):
    nginx, backend = serve(Reply(504))
    assert (net.ask(nginx).status, said(backend)) == (504, {504: 1})
    eventually(lambda: ended(client, 1, failures=1))


def test_a_pool_without_a_free_server(serve, net, client):
    nginx, backend = serve(None)
    client.execute_command("LB.STATE web", backend.name, "drain")
    answer = net.ask(nginx)
    assert (answer.status, answer.body) == (503, b"no server can take this request\n")
    assert sums_of(client)["picks"] == 0
    # The pool was asked once: an answer of nginx itself is no reason to ask again.
    assert client.execute_command("LB.INFO web")["refused"] == 1


@pytest.mark.parametrize("method", ["POST", "PATCH", "LOCK"])
def test_what_a_server_has_got_is_not_sent_again(serve, net, client, method):
    nginx, *backends = serve(*[BUSY] * 2)
    answer = net.ask(nginx, method, "/", b"pay 5")
    assert (answer.status, answer.body, said(*backends)) == (503, b"busy", {503: 1})
    eventually(lambda: ended(client, 1, failures=1))
    for backend in backends:
        backend.reply = lambda: Reply(None)
    assert (net.ask(nginx, method, "/", b"pay 5").status, said(*backends)) == (502, {503: 1, None: 1})


def test_what_no_server_has_got_is_sent_again(serve, net, client):
    nginx, backend = serve(None)
    client.execute_command("LB.ADD web 127.0.0.1:1 1000")  # nobody listens there
    assert net.ask(nginx, "POST", "/", b"pay 5").status == 200
    assert backend.asked == {"POST": 1}
    eventually(lambda: ended(client, 2, failures=1))


def test_a_server_that_fails_is_ejected(serve, net, client):
    nginx, busy, well = serve(BUSY, None)
    client.execute_command("LB.HEALTH web FAILS 3 EJECT 60000")
    # The pool hears of a failure after the client has its answer, when the next request may be on its way.
    for _ in range(20):
        assert net.ask(nginx).status == 200
        eventually(lambda: sums_of(client)["leases"] == 0)
    assert ended(client, 23, failures=3)
    assert client.execute_command("LB.STATS web", busy.name)["health"] == "ejected"


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_says_retry_after_cools(serve, net, client, status):
    nginx, busy, well = serve(Reply(status, {"Retry-After": "60"}), None)
    # The first request goes to the busy one. The pool hears of that after the client has its answer.
    assert net.ask(nginx).status == (429 if status == 429 else 200)
    eventually(lambda: client.execute_command("LB.STATS web", busy.name)["health"] == "cooling")
    assert [net.ask(nginx).status for _ in range(9)] == [200] * 9
    eventually(lambda: ended(client, 10 if status == 429 else 11))
    of = client.execute_command("LB.STATS web", busy.name)
    assert (of["health"], of["done"]) == ("cooling", 1)
    assert 50_000 < of["back-in-ms"] <= 60_020


def test_retry_after_can_be_a_date(serve, net, client):
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    nginx, busy, well = serve(Reply(503, {"Retry-After": date}), None)
    assert {net.ask(nginx).status for _ in range(3)} == {200}
    eventually(lambda: client.execute_command("LB.STATS web", busy.name)["health"] == "cooling")
    assert 50_000 < client.execute_command("LB.STATS web", busy.name)["back-in-ms"] <= 60_020


@pytest.mark.parametrize("header", ["soon", "-1", "0", "nan", "1e300"])
def test_no_retry_after_holds_a_lease(serve, net, client, header):
    nginx, busy, well = serve(Reply(503, {"Retry-After": header}), None)
    assert {net.ask(nginx).status for _ in range(3)} == {200}
    eventually(lambda: sums_of(client)["leases"] == 0)
    assert sums_of(client)["done"] == sums_of(client)["picks"]


def test_429_says_nothing_of_the_server(serve, net, client):
    nginx, busy = serve(Reply(429))
    assert net.ask(nginx).status == 429
    eventually(lambda: ended(client, 1))
    assert client.execute_command("LB.STATS web", busy.name)["latencies"] == 0


def test_an_answer_of_nginx_itself_says_nothing_of_the_server(serve, net, client):
    locations = "location /x { proxy_pass http://lb; error_page 503 = @x; } location @x { empty_gif; }"
    nginx, *_ = serve(BUSY, BUSY, locations=locations)
    assert net.ask(nginx, "GET", "/x").status == 200
    eventually(lambda: ended(client, 2, failures=1))


def test_latencies_are_told(serve, net, client):
    nginx, slow = serve(Reply(seconds=0.2))
    net.ask(nginx)
    eventually(lambda: ended(client, 1))
    of = client.execute_command("LB.STATS web", slow.name)
    assert of["latencies"] == 1 and 190_000 <= of["latency-us"] < 60_000_000


def test_a_client_that_leaves_says_nothing_of_the_server(serve, net, client):
    nginx, slow = serve(Reply(seconds=30))

    async def leave():
        one = Client(nginx.port)
        asked = asyncio.ensure_future(one.ask())
        while not slow.said:
            await asyncio.sleep(0.01)
        one.close()
        asked.cancel()

    net.run(leave())
    eventually(lambda: ended(client, 1))
    assert client.execute_command("LB.STATS web", slow.name)["latencies"] == 0


def test_a_long_answer_keeps_its_lease_through_a_reload(serve, net, client):
    nginx, slow = serve(Reply(seconds=3), lease_ms=2_000)
    before = nginx.workers()
    answer = net.begin(Client(nginx.port).ask())
    eventually(lambda: slow.said)
    nginx.reload()
    assert answer.result().status == 200
    eventually(lambda: ended(client, 1))
    eventually(lambda: not nginx.workers() & before)


def test_a_lease_ends_soon_after_its_worker_was_killed(serve, net, client):
    nginx, slow = serve(Reply(seconds=30), lease_ms=300, workers=1, expected="exited on signal 9")
    net.begin(Client(nginx.port).ask())
    eventually(lambda: slow.said)
    (worker,) = nginx.workers()
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: sums_of(client)["expired"] == 1)


def test_an_internal_redirect_keeps_the_lease(serve, net, client):
    nginx, backend = serve(
        Reply(headers={"X-Accel-Redirect": "/inside"}),
        locations='location /inside { return 200 "from nginx"; }',
    )
    assert net.ask(nginx).body == b"from nginx"
    eventually(lambda: ended(client, 1))


def test_a_closed_connection_that_nginx_had_kept_is_no_failure(serve, net, client):
    nginx, backend = serve(Reply(), workers=1)
    assert net.ask(nginx).status == 200
    backend.reply = lambda: Reply(None) if backend.said.total() == 1 else Reply()
    assert net.ask(nginx).status == 200
    eventually(lambda: ended(client, 2))


@pytest.mark.parametrize("auth", ['{ "secret" }', '{ "default", "secret" }'])
def test_a_server_with_a_password(new_server, serve, net, auth):
    server = new_server(requirepass="secret")
    nginx, _ = serve(None, at=server, auth=auth)
    assert {net.ask(nginx).status for _ in range(3)} == {200}
    eventually(lambda: ended(server.client(), 3))


def tenth_is_busy():
    return Reply(503 if random.random() < 0.1 else 200, seconds=random.uniform(0.05, 0.35))


def test_under_load_and_reloads_each_lease_is_ended(serve, net, client):
    seconds = 60 if LONG else 3
    # On a busy machine a worker may exit with a timer of Lua, which has connection 0, and say so. It does no
    # harm as long as each lease is ended.
    left = "open socket #-2 left in connection 0|aborting$"
    nginx, *backends = serve(*[tenth_is_busy] * 5, expected=left)
    load = net.load(nginx, 400, seconds)
    for _ in range(3):
        time.sleep(seconds / 4)
        nginx.reload()
    answers = Counter(answer.status for answer in load.result())
    sent = said(*backends)
    print(f"{answers} for 400 connections in {seconds} s; the servers said {sent}")
    assert answers[200] > 0.98 * answers.total() and set(answers) <= {200, 503}
    assert answers.total() > 100 * seconds
    eventually(lambda: ended(client, sent.total(), failures=sent[503]))
    eventually(lambda: len(nginx.workers()) == 2)


def test_without_redis_requests_go_on(new_server, serve, net):
    server = new_server()
    client = server.client()
    replies = [lambda: Reply(seconds=random.uniform(0.01, 0.1))] * 3
    nginx, *backends = serve(
        *replies, at=server, lease_ms=4_000, timeout_ms=500, expected="goes on without Redis: timeout"
    )
    assert net.ask(nginx).status == 200
    load = net.load(nginx, 40, 4)
    eventually(lambda: sums_of(client)["picks"] > 100)

    server.pause()
    time.sleep(1)
    nginx.reload()  # the new workers know the servers, too
    alone = net.load(nginx, 40, 1).result()
    server.go_on()

    answers = load.result()
    assert {answer.status for answer in [*answers, *alone]} == {200}
    picks = sums_of(client)["picks"]
    eventually(lambda: net.ask(nginx).status == 200 and sums_of(client)["picks"] > picks)
    # Leases whose grant was never read end by their deadline, all others by LB.DONE.
    eventually(lambda: sums_of(client)["leases"] == 0)
    sums = sums_of(client)
    print(f"{len(answers)} requests, and {len(alone)} without Redis; {sums}")
    assert sums["done"] + sums["expired"] == sums["picks"]
    # Those are the picks of the old and of the new workers before they knew.
    assert sums["expired"] < 2 * (40 + 40)


def test_without_redis_servers_are_asked_by_weight_and_each_once(new_server, serve, net):
    server = new_server()
    nginx, heavy, light, busy = serve(
        None, None, BUSY, at=server, expected="goes on without Redis: connection refused"
    )
    server.client().execute_command("LB.WEIGHT web", heavy.name, 8)
    server.client().execute_command("LB.WEIGHT web", busy.name, 16)
    assert net.ask(nginx).status == 200
    server.stop()
    assert {net.ask(nginx).status for _ in range(200)} == {200}
    asked = [said(backend).total() for backend in (heavy, light, busy)]
    # 8:1, for the busy one is asked first by two thirds of the requests, and once by each of them.
    assert asked[0] > 4 * asked[1] > 0 and 100 < asked[2] < 180


def test_a_primary_that_became_a_replica(new_server, serve, net):
    server = new_server()
    client = server.client()
    nginx, _ = serve(None, at=server, retry_s=0.1, expected="goes on without Redis: READONLY")
    assert net.ask(nginx).status == 200
    eventually(lambda: ended(client, 1))
    client.execute_command("REPLICAOF 127.0.0.1 1")
    assert {net.ask(nginx).status for _ in range(5)} == {200}
    # A kept connection would never find the new primary behind the same address.
    eventually(lambda: len(client.client_list(_type="normal")) == 1)
    client.execute_command("REPLICAOF NO ONE")
    eventually(lambda: net.ask(nginx).status == 200 and sums_of(client)["picks"] > 1)
