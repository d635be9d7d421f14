// Keys behind express-rate-limit: `node express.cjs LIMIT SECONDS ANSWER`, with the file of an answer to a create.
// Prints its port first, and after SIGTERM how many answers had which status, as JSON.

const fs = require("node:fs");
const express = require("express");
const { rateLimit } = require("express-rate-limit");

const [limit, seconds, answer] = process.argv.slice(2);
const created = JSON.parse(fs.readFileSync(answer, "utf8"));
const statuses = {};
let number = 0;

const app = express();
app.use((request, response, next) => {
  response.on("finish", () => {
    statuses[response.statusCode] = (statuses[response.statusCode] ?? 0) + 1;
  });
  next();
});
app.use(
  rateLimit({
    windowMs: 1000 * Number(seconds),
    limit: Number(limit),
    standardHeaders: "draft-7",
    legacyHeaders: false,
    keyGenerator: (request) => request.get("Authorization"),
  }),
);
app.post("/api/temporary-keys/", (request, response) => {
  const id = `key-${number++}`;
  response.status(201).json({ ...created, id, prefix: id, api_key: `${id}.secret` });
});

const server = app.listen(0, "127.0.0.1", () => console.log(server.address().port));
server.keepAliveTimeout = 75_000; // as long as nginx keeps a connection
process.on("SIGTERM", () => {
  console.log(JSON.stringify(statuses));
  process.exit();
});
