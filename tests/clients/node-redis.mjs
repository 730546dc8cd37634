// Names of any bytes there and back, codes of errors, a map, nil. test_clients.py says what it must print.
import { createClientPool, RESP_TYPES } from "redis";

const pool = createClientPool({ url: "redis://127.0.0.1:6379", RESP: 3 }, { minimum: 2, maximum: 4 });
pool.on("error", (error) => console.error(error.message));
await pool.connect();
const bytes = { typeMapping: { [RESP_TYPES.BLOB_STRING]: Buffer } };

const binary = Buffer.from([0x00, 0xff, 0x0d, 0x0a]);
await pool.sendCommand(["LB.ADD", "odd", "two words", "1", binary, "1", '"\\', "1"]);
for (const name of await pool.sendCommand(["LB.PICK", "odd", "COUNT", "3"], bytes))
  await pool.sendCommand(["LB.WEIGHT", "odd", name, "7"]);

await pool.set("text", "x");
for (const command of ["LB.WEIGHT odd x 1", "LB.PICK text", "LB.PICK odd COUNT 0"])
  await pool.sendCommand(command.split(" ")).catch((error) => console.log(error.message.split(" ")[0]));
console.log(Array.isArray(await pool.sendCommand(["LB.STATS", "odd"])) ? "list" : "map");
console.log((await pool.sendCommand(["LB.PICK", "none"])) === null ? "nil" : "?");
console.log((await pool.sendCommand(["LB.STATS", "odd", "x"])) === null ? "nil" : "?");
await pool.close();
