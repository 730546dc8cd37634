// Names of any bytes there and back, codes of errors, a map, nil, a pick that waits. See test_clients.py.
import { createClient, createClientPool, RESP_TYPES } from "redis";

const pool = createClientPool({ url: "redis://127.0.0.1:6379", RESP: 3 }, { minimum: 2, maximum: 4 });
pool.on("error", (error) => console.error(error.message));
await pool.connect();
const bytes = { typeMapping: { [RESP_TYPES.BLOB_STRING]: Buffer } };

const binary = Buffer.from([0x00, 0xff, 0x0d, 0x0a]);
await pool.del(["odd", "busy", "text"]);
await pool.sendCommand(["LB.ADD", "odd", "two words", "1", binary, "1", '"\\', "1"]);
for (const name of await pool.sendCommand(["LB.PICK", "odd", "COUNT", "3"], bytes))
  await pool.sendCommand(["LB.WEIGHT", "odd", name, "7"]);

await pool.set("text", "x");
for (const command of ["LB.WEIGHT odd x 1", "LB.PICK text", "LB.PICK odd COUNT 0"])
  await pool.sendCommand(command.split(" ")).catch((error) => console.log(error.message.split(" ")[0]));
console.log(Array.isArray(await pool.sendCommand(["LB.STATS", "odd"])) ? "list" : "map");
console.log((await pool.sendCommand(["LB.PICK", "none"])) === null ? "nil" : "?");
console.log((await pool.sendCommand(["LB.STATS", "odd", "x"])) === null ? "nil" : "?");

// Waiting: a connection of its own, with a socketTimeout above BLOCK. It is not one of a pool's, which are shared:
// LB.DONE would stand behind the pick that waits for it.
const waiting = createClient({ url: "redis://127.0.0.1:6379", RESP: 3, socket: { socketTimeout: 10000 } });
waiting.on("error", (error) => console.error(error.message));
await waiting.connect();
await pool.sendCommand(["LB.ADD", "busy", "one", "1"]);
await pool.sendCommand(["LB.LIMIT", "busy", "MAX", "1"]);
const [, lease] = await pool.sendCommand(["LB.PICK", "busy", "LEASE", "60000"]);
const picked = waiting.sendCommand(["LB.PICK", "busy", "LEASE", "60000", "BLOCK", "5000"]);
await pool.sendCommand(["LB.DONE", "busy", lease]);
console.log((await picked)[0]);
await waiting.close();
await pool.close();
