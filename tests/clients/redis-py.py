# Names of any bytes there and back, codes of errors, a map, nil. test_clients.py says what it must print.
import redis

r = redis.Redis(port=6379, protocol=3)  # without decode_responses: names are bytes
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
