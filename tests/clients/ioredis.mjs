// Names of any bytes there and back, codes of errors, a map, nil, a pick that waits. See test_clients.py.
import Redis from "ioredis";

const redis = new Redis("redis://127.0.0.1:6379");
const binary = Buffer.from([0x00, 0xff, 0x0d, 0x0a]);
await redis.del("odd", "busy", "text");
await redis.call("LB.ADD", "odd", "two words", 1, binary, 1, '"\\', 1);
for (const name of await redis.callBuffer("LB.PICK", "odd", "COUNT", 3))
  await redis.call("LB.WEIGHT", "odd", name, 7);

await redis.set("text", "x");
for (const command of ["LB.WEIGHT odd x 1", "LB.PICK text", "LB.PICK odd COUNT 0"])
  await redis.call(...command.split(" ")).catch((error) => console.log(error.message.split(" ")[0]));
console.log(Array.isArray(await redis.call("LB.STATS", "odd")) ? "list" : "map");
console.log((await redis.call("LB.PICK", "none")) === null ? "nil" : "?");
console.log((await redis.call("LB.STATS", "odd", "x")) === null ? "nil" : "?");

// Waiting: a connection of its own, without a commandTimeout below BLOCK, and without retries.
// On the shared one LB.DONE would stand behind the pick that waits for it.
const waiting = redis.duplicate({ commandTimeout: 10000, maxRetriesPerRequest: 0 });
await redis.call("LB.ADD", "busy", "one", 1);
await redis.call("LB.LIMIT", "busy", "MAX", 1);
const [, lease] = await redis.call("LB.PICK", "busy", "LEASE", 60000);
const picked = waiting.call("LB.PICK", "busy", "LEASE", 60000, "BLOCK", 5000);
await redis.call("LB.DONE", "busy", lease);
console.log((await picked)[0]);
waiting.disconnect();
redis.disconnect();
