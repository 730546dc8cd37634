# Names of any bytes there and back, codes of errors, a map, nil, a pick that waits. See test_clients.py.
import threading

import redis

r = redis.Redis(port=6379, protocol=3)  # without decode_responses: names are bytes
r.delete("odd", "busy", "text")
r.execute_command("LB.ADD", "odd", "two words", 1, b"\0\xff\r\n", 1, '"\\', 1)
for name in r.execute_command("LB.PICK", "odd", "COUNT", 3):
    r.execute_command("LB.WEIGHT", "odd", name, 7)

r.set("text", "x")
for command in (["LB.WEIGHT", "odd", "x", 1], ["LB.PICK", "text"], ["LB.PICK", "odd", "COUNT", 0]):
    try:
        r.execute_command(*command)
    except redis.ResponseError as error:
        print(error.status_code or str(error).split()[0])
print("map" if isinstance(r.execute_command("LB.STATS", "odd"), dict) else "list")
print("nil" if r.execute_command("LB.PICK", "none") is None else "?")
print("nil" if r.execute_command("LB.STATS", "odd", "x") is None else "?")

# Waiting: a timeout above BLOCK, and no retry. Each thread has a connection of its own out of the client's.
waiting = redis.Redis(port=6379, protocol=3, decode_responses=True, socket_timeout=10, retry=None)
r.execute_command("LB.ADD", "busy", "one", 1)
r.execute_command("LB.LIMIT", "busy", "MAX", 1)
_, lease = r.execute_command("LB.PICK", "busy", "LEASE", 60000)
threading.Timer(0.1, r.execute_command, ["LB.DONE", "busy", lease]).start()
backend, lease = waiting.execute_command("LB.PICK", "busy", "LEASE", 60000, "BLOCK", 5000)
print(backend)
