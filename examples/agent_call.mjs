#!/usr/bin/env node
// An agent in Node.js asks for one thing and waits for the answer.
//
//     AMQP_URL=amqp://guest:guest@127.0.0.1:5672/%2f \
//         node examples/agent_call.mjs get_user '{"user_id": "jane@example.com"}' sandbox
//
// The same as agent_call.py: direct reply-to, a deadline, the interactive lane; and it hears of waits. Needs
// `amqplib` (npm install amqplib). Exits 0 when it succeeded, 1 when it failed, 3 without an answer.

import { randomUUID } from "node:crypto";

import amqp from "amqplib";

const SECONDS = 30; // how long somebody waits here
const GRACE = 5; // work that has begun is finished, and its answer takes its way

const [subtool, text = "{}", connection = "prod"] = process.argv.slice(2);
if (!subtool) {
  console.error("usage: agent_call.mjs SUBTOOL [ARGUMENTS] [CONNECTION]");
  process.exit(2);
}

const url = new URL(process.env.AMQP_URL ?? "amqp://guest:guest@127.0.0.1:5672/%2f");
const client = await amqp.connect(url.href);
const channel = await client.createConfirmChannel();

const id = randomUUID();
const answered = new Promise((resolve) => {
  // The consumer of the replies and the publisher must be the same channel, without acknowledgements.
  channel.consume(
    "amq.rabbitmq.reply-to",
    (message) => {
      if (message?.properties.correlationId !== id) return;
      const body = JSON.parse(message.content.toString());
      if (message.properties.type === "okta.progress") {
        console.error(`waiting for ${body.bucket ?? "another attempt"}, ${body.waited_ms} ms so far`);
      } else {
        resolve(body);
      }
    },
    { noAck: true },
  );
});

const body = {
  subtool,
  arguments: JSON.parse(text),
  // Nobody listens any more after that, so the worker need not begin.
  options: { deadline: new Date(Date.now() + SECONDS * 1000).toISOString() },
};
// The connection alone means its interactive lane: somebody waits.
channel.publish("okta.invocations", connection, Buffer.from(JSON.stringify(body)), {
  messageId: id,
  correlationId: id,
  replyTo: "amq.rabbitmq.reply-to",
  timestamp: Math.floor(Date.now() / 1000),
  // Who asks. RabbitMQ refuses the message when it is not the user we are logged in as.
  userId: decodeURIComponent(url.username),
  contentType: "application/json",
  persistent: true,
  headers: { "okta-progress": true },
});
await channel.waitForConfirms();

const late = new Promise((resolve) => setTimeout(resolve, (SECONDS + GRACE) * 1000).unref());
const result = await Promise.race([answered, late]);
await client.close();
if (!result) {
  console.error("no answer; is a worker running?");
  process.exit(3);
}
console.log(JSON.stringify(result, null, 2));
// `planned` is the success of a dry run.
process.exit(["succeeded", "planned"].includes(result.status) ? 0 : 1);
