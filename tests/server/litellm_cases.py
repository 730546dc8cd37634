"""The Router of LiteLLM with the routing strategy of its README, before providers on loopback.

test_litellm.py runs this file in an environment that has LiteLLM.
"""

import asyncio
import gc
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import litellm
import pytest
import redis.asyncio
from redis_lb_litellm import PoolRouting

from documents import at_port, blocks
from server import eventually

MESSAGES = [{"role": "user", "content": "x"}]


class Provider(ThreadingHTTPServer):
    """A server of OpenAI's protocol. It answers with its name, in three chunks for a stream."""

    daemon_threads = True

    def __init__(self, name, status=200, headers=None, seconds=0.0):
        super().__init__(("127.0.0.1", 0), Answer)
        self.name, self.status, self.headers, self.seconds = name, status, headers or {}, seconds
        self.asked = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def deployment(self):
        base = f"http://127.0.0.1:{self.server_port}/v1"
        params = {"model": "openai/fake", "api_key": "none", "api_base": base, "max_retries": 0}
        return {"model_name": "chat", "litellm_params": params, "model_info": {"id": self.name}}


class Answer(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        self.server.asked += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_stream = body.get("stream") and self.server.status == 200
        kind = "text/event-stream" if is_stream else "application/json"
        self.send_response(self.server.status)
        for name, value in ({"Content-Type": kind} | self.server.headers).items():
            self.send_header(name, value)
        self.end_headers()
        time.sleep(self.server.seconds)
        if self.server.status != 200:
            self.wfile.write(b'{"error": {"message": "no", "type": "x"}}')
        elif is_stream:
            for number in range(3):
                self.say(
                    f"data: {json.dumps(self.of({'delta': {'content': self.server.name}}, number == 2))}\n\n"
                )
            self.say("data: [DONE]\n\n")
        else:
            self.say(
                json.dumps(self.of({"message": {"role": "assistant", "content": self.server.name}}, True))
            )

    def of(self, message, is_last):
        choice = {"index": 0, "finish_reason": "stop" if is_last else None} | message
        kind = "chat.completion.chunk" if "delta" in message else "chat.completion"
        return {"id": "1", "object": kind, "created": 1, "model": "fake", "choices": [choice]}

    def say(self, text):
        try:
            self.wfile.write(text.encode())
            time.sleep(self.server.seconds)
        except ConnectionError:
            pass


class Sync:
    """A request as code without asyncio makes it."""

    def __init__(self, router, _):
        self.router = router

    def ask(self, **more):
        return self.router.completion("chat", MESSAGES, **more).choices[0].message.content

    def stream(self, most=100):
        stream = self.router.completion("chat", MESSAGES, stream=True)
        return [chunk.choices[0].delta.content for chunk, _ in zip(stream, range(most), strict=False)]


class Async(Sync):
    """The same as code with asyncio makes it."""

    def __init__(self, router, loop):
        self.router, self.run = router, lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(30)

    def ask(self, **more):
        return self.run(self.router.acompletion("chat", MESSAGES, **more)).choices[0].message.content

    def stream(self, most=100):
        async def read():
            chunks = []
            async for chunk in await self.router.acompletion("chat", MESSAGES, stream=True):
                chunks.append(chunk.choices[0].delta.content)
                if len(chunks) == most:
                    break
            return chunks

        return self.run(read())


@pytest.fixture(params=[Sync, Async])
def route(request, server):
    """Makes a router before these providers; answers a client of it. Each has the weight 1."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    litellm.logging_callback_manager._reset_all_callbacks()

    def make(*providers, **terms):
        for provider in providers:
            server.client().execute_command("LB.ADD llm:chat", provider.name, 1)
        router = litellm.Router([of.deployment() for of in providers], num_retries=2, disable_cooldowns=True)
        PoolRouting(router, server.client(), redis.asyncio.Redis(port=server.port), **terms)
        return request.param(router, loop)

    yield make
    loop.call_soon_threadsafe(loop.stop)


def sums_of(client):
    names = ("picks", "leases", "done", "failures", "expired")
    stats = client.execute_command("LB.STATS llm:chat").values()
    return {name: sum(of[name] for of in stats) for name in names}


def ended(client, done, failures=0):
    expected = {"picks": done, "leases": 0, "done": done, "failures": failures, "expired": 0}
    eventually(lambda: sums_of(client) == expected)


@pytest.mark.parametrize("block", blocks("python", "litellm"), ids=str)
def test_the_readme(server, block, capsys):
    exec(compile(at_port(block.text, server.port), str(block.path), "exec"), {})
    assert capsys.readouterr().out.startswith("Hello from key-")
    ended(server.client(), 1)


def test_shares(route, client):
    requests = route(Provider("a"), Provider("b"), Provider("c"))
    client.execute_command("LB.WEIGHT llm:chat a 5")
    assert Counter(requests.ask() for _ in range(14)) == {"a": 10, "b": 2, "c": 2}
    ended(client, 14)


def test_streams(route, client):
    provider = Provider("a")
    requests = route(provider)
    requests.stream()  # LiteLLM imports what it needs
    provider.seconds = 0.4
    eventually(lambda: sums_of(client)["leases"] == 0)
    before = client.execute_command("LB.STATS llm:chat a")["latency-sum-us"]
    assert [name for name in requests.stream() if name] == ["a"] * 3
    ended(client, 2)
    # The time to the first chunk, not that to the last one.
    took = client.execute_command("LB.STATS llm:chat a")["latency-sum-us"] - before
    assert 390_000 < took < 1_150_000


def test_retries_go_elsewhere(route, client):
    requests = route(Provider("a", 500), Provider("b", 503), Provider("c"))
    assert [requests.ask() for _ in range(3)] == ["c"] * 3
    sums = sums_of(client)
    assert sums["failures"] >= 3
    ended(client, 3 + sums["failures"], sums["failures"])


def test_a_caller_may_give_all_requests_the_same_metadata(route, client):
    requests = route(Provider("a", 500), Provider("b"))
    metadata = {"user": "u"}
    assert [requests.ask(metadata=metadata) for _ in range(4)] == ["b"] * 4
    ended(client, 4 + sums_of(client)["failures"], sums_of(client)["failures"])
    assert sums_of(client)["failures"] > 1


def test_retry_after_cools(route, client):
    requests = route(Provider("a", 429, {"Retry-After": "60"}), Provider("b"))
    assert [requests.ask() for _ in range(3)] == ["b"] * 3
    ended(client, 4)
    of = client.execute_command("LB.STATS llm:chat a")
    assert of["health"] == "cooling" and 50_000 < of["back-in-ms"] <= 60_020


def test_a_bad_request_says_nothing_of_the_deployment(route, client):
    requests = route(Provider("a", 400))
    with pytest.raises(litellm.BadRequestError):
        requests.ask()
    eventually(lambda: sums_of(client)["leases"] == 0)
    assert sums_of(client)["failures"] == 0 and sums_of(client)["done"] >= 1


def test_without_a_free_deployment_the_client_hears_of_a_rate_limit(route, client):
    requests = route(Provider("a"))
    client.execute_command("LB.STATE llm:chat a drain")
    with pytest.raises(litellm.RateLimitError, match="drained"):
        requests.ask()


def test_a_request_waits_for_a_free_deployment(route, client):
    provider = Provider("a", seconds=0.3)
    requests = route(provider, wait_ms=10_000)
    client.execute_command("LB.LIMIT llm:chat BACKEND a MAX 1")
    threads = [threading.Thread(target=requests.ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert provider.asked == 3
    ended(client, 3)


def test_a_long_answer_keeps_its_lease(route, client):
    requests = route(Provider("a", seconds=0.4), ttl_ms=300)
    assert set(requests.stream()) <= {"a", None}
    ended(client, 1)


def test_a_stream_that_is_left_ends_its_lease(route, client):
    requests = route(Provider("a", seconds=0.05))
    assert requests.stream(1) == ["a"]
    eventually(lambda: gc.collect() >= 0 and sums_of(client)["leases"] == 0, pause=0.1)
    ended(client, 1)


def test_a_task_that_is_cancelled_ends_its_lease(route, client):
    provider = Provider("a", seconds=2)
    requests = route(provider)
    if not isinstance(requests, Async):
        pytest.skip("tasks are asyncio's")

    async def cancel():
        task = asyncio.ensure_future(requests.router.acompletion("chat", MESSAGES))
        while not provider.asked:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])

    requests.run(cancel())
    eventually(lambda: gc.collect() >= 0 and sums_of(client)["leases"] == 0, pause=0.1)
    ended(client, 1)


def test_a_deployment_that_the_router_lacks(route, client):
    requests = route(Provider("a"))
    client.execute_command("LB.ADD llm:chat other 1")
    assert [requests.ask() for _ in range(4)] == ["a"] * 4
    eventually(lambda: gc.collect() >= 0 and sums_of(client)["leases"] == 0, pause=0.1)
