#!/usr/bin/env node
// An agent in Node.js sends one invocation and waits for its result.
//
//     AMQP_URL=amqp://guest:guest@127.0.0.1:5672/%2f \
//         node examples/agent_call.mjs get_user '{"user_id": "jane@example.com"}' --connection sandbox
//
// The same as agent_call.py, with the same arguments: direct reply-to, a deadline, the interactive lane. While the
// invocation waits in the worker, the agent prints the progress messages to stderr. Exits with the same codes: 0 if the
// invocation succeeded, 1 if it failed, 2 for wrong arguments or a missing package, and 3 without a result (no broker,
// no answer in time, or a message that RabbitMQ refused).
//
// Needs `amqplib` (npm install amqplib).

import { randomUUID } from "node:crypto";
import { parseArgs } from "node:util";

const USAGE = `usage: agent_call.mjs SUBTOOL ARGUMENTS [--connection NAME] [--seconds N]

  SUBTOOL            such as get_user; see \`okta-worker catalog\`
  ARGUMENTS          a JSON object
  --connection NAME  the worker's name for the Okta org (default: prod)
  --seconds N        how long to wait (default: 30)`;
// Seconds: the worker finishes an invocation that has begun before its deadline; the result takes its time.
const GRACE = 5;
const SECONDS_MAX = 86_400;
const CONNECT_MAX_MS = 10_000;

// Ends the program without a result.
function stop(code, text) {
  console.error(text);
  process.exit(code);
}

function wrong(text) {
  stop(2, `${USAGE.split("\n")[0]}\nagent_call.mjs: error: ${text}`);
}

// The command line; options may stand before, between and after the positional arguments.
function parse() {
  let values, positionals;
  try {
    ({ values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        connection: { type: "string", default: "prod" },
        seconds: { type: "string", default: "30" },
        help: { type: "boolean", short: "h" },
      },
    }));
  } catch (error) {
    wrong(error.message.split("\n")[0]);
  }
  if (values.help) {
    console.log(USAGE);
    process.exit(0);
  }
  if (positionals.length !== 2) wrong("give a subtool and its arguments as JSON");
  let callArguments;
  try {
    callArguments = JSON.parse(positionals[1]);
  } catch (error) {
    wrong(`ARGUMENTS: not JSON: ${error.message}`);
  }
  if (callArguments === null || typeof callArguments !== "object" || Array.isArray(callArguments)) {
    wrong("ARGUMENTS: not a JSON object");
  }
  const seconds = Number(values.seconds);
  if (!(seconds > 0 && seconds <= SECONDS_MAX)) {
    wrong(`--seconds: not a number between 0 and ${SECONDS_MAX}: ${values.seconds}`);
  }
  return { subtool: positionals[0], callArguments, connection: values.connection, seconds };
}

// The broker of AMQP_URL: its URL, where it is, and the user.
function broker() {
  try {
    const url = new URL(process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672/%2f");
    const port = { "amqp:": 5672, "amqps:": 5671 }[url.protocol];
    if (!port) throw new Error("another scheme");
    return {
      href: url.href,
      place: `${url.hostname}:${url.port || port}`,
      user: decodeURIComponent(url.username) || "guest",
    };
  } catch {
    // The error's text may show the password.
    wrong("AMQP_URL is not a URL such as amqp://user:password@host:5672/vhost");
  }
}

// Sends one invocation and returns its result.
async function call(channel, user, { subtool, callArguments, connection, seconds }) {
  const id = randomUUID();
  let received;
  const answered = new Promise((resolve) => (received = resolve));
  // The consumer of the replies and the publisher must be the same channel, without acknowledgements.
  await channel.consume(
    "amq.rabbitmq.reply-to",
    (message) => {
      if (message?.properties.correlationId !== id) return;
      const body = JSON.parse(message.content.toString());
      if (message.properties.type === "okta.progress") {
        console.error(`waiting for ${body.bucket ?? body.waiting_for}, ${body.waited_ms} ms so far`);
      } else {
        received(body);
      }
    },
    { noAck: true },
  );
  const body = {
    subtool,
    arguments: callArguments,
    // Nobody waits any longer than that, so the worker need not begin later. It answers `rate_limited` at once if
    // Okta's limits do not allow it in time.
    options: { deadline: new Date(Date.now() + seconds * 1000).toISOString() },
  };
  // The connection alone as the routing key means its interactive lane.
  channel.publish("okta.invocations", connection, Buffer.from(JSON.stringify(body)), {
    messageId: id,
    correlationId: id,
    replyTo: "amq.rabbitmq.reply-to",
    timestamp: Math.floor(Date.now() / 1000),
    // The caller. RabbitMQ refuses the message if it is not the user of this connection.
    userId: user,
    contentType: "application/json",
    persistent: true,
    headers: { "okta-progress": true },
  });
  await channel.waitForConfirms();
  return answered;
}

let amqp;
try {
  ({ default: amqp } = await import("amqplib"));
} catch (error) {
  if (error.code !== "ERR_MODULE_NOT_FOUND") throw error;
  stop(2, "the package `amqplib` is missing: npm install amqplib");
}
const options = parse();
const { href, place, user } = broker();

let client;
try {
  client = await amqp.connect(href, { timeout: CONNECT_MAX_MS });
} catch (error) {
  const reason = error.message.split("\n")[0] || error.code;
  stop(
    3,
    `failed to connect to RabbitMQ at ${place} as user \`${user}\` (${reason}):` +
      " start RabbitMQ there, or correct AMQP_URL",
  );
}
const lost = new Promise((_, reject) => {
  client.on("error", reject);
  client.on("close", () => reject(new Error("the connection was closed")));
});
const late = new Promise((resolve) => setTimeout(resolve, (options.seconds + GRACE) * 1000).unref());
let result;
let refusal; // RabbitMQ closes the channel if the exchange does not exist, or the user may not publish there
try {
  const channel = await Promise.race([client.createConfirmChannel(), lost]);
  const refused = new Promise((_, reject) => {
    channel.on("error", (error) => {
      refusal = error;
      reject(error);
    });
  });
  result = await Promise.race([call(channel, user, options), refused, lost, late]);
} catch (error) {
  if (refusal) {
    stop(
      3,
      `RabbitMQ refused the invocation (${refusal.message}): is a worker running,` +
        ` and may user \`${user}\` publish for connection \`${options.connection}\`?`,
    );
  }
  stop(3, `lost RabbitMQ at ${place} (${error.message}): the invocation may still run`);
}
await client.close();
if (!result) stop(3, "no answer in time: is a worker running?");
console.log(JSON.stringify(result, null, 2));
// `planned` is the success of a dry run.
process.exitCode = ["succeeded", "planned"].includes(result.status) ? 0 : 1;
