#!/usr/bin/env python3
"""An agent asks for one thing and waits for the answer.

    AMQP_URL=amqp://guest:guest@127.0.0.1:5672/%2f \\
        examples/agent_call.py get_user '{"user_id": "jane@example.com"}' --connection sandbox

Uses RabbitMQ's direct reply-to: no queue to declare, and nothing left behind when the agent goes away.
The price: an answer that comes after the agent has left is dropped. Who cannot afford that uses a named
queue, as bulk_onboarding.py does.

Needs `pika` (Debian: python3-pika). Exits 0 when it succeeded, 1 when it failed, 3 without an answer.
"""

import argparse
import json
import os
import sys
import time
import uuid
from datetime import datetime, timedelta, timezone

import pika


def call(channel, user, connection, subtool, arguments, seconds):
    """Sends one invocation and returns its result, or None when none came in time."""
    answers = []
    # With confirms, publishing raises when RabbitMQ refuses: no such exchange, or not our connection.
    channel.confirm_delivery()
    # The consumer of the replies and the publisher must be the same channel, without acknowledgements.
    channel.basic_consume(
        "amq.rabbitmq.reply-to",
        lambda _channel, _method, properties, body: answers.append((properties, body)),
        auto_ack=True,
    )
    invocation_id = str(uuid.uuid4())
    deadline = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    body = {
        "subtool": subtool,
        "arguments": arguments,
        # Nobody listens any more after that, so the worker need not begin. It says `rate_limited` at
        # once when Okta's limits cannot make it in time, instead of letting us wait.
        "options": {"deadline": deadline.isoformat()},
    }
    channel.basic_publish(
        exchange="okta.invocations",
        # The connection alone means its interactive lane: somebody waits.
        routing_key=connection,
        body=json.dumps(body),
        properties=pika.BasicProperties(
            message_id=invocation_id,
            correlation_id=invocation_id,
            reply_to="amq.rabbitmq.reply-to",
            timestamp=int(time.time()),
            # Who asks. RabbitMQ refuses the message when it is not the user we are logged in as.
            user_id=user,
            content_type="application/json",
            delivery_mode=2,
        ),
    )
    until = time.monotonic() + seconds + 5
    while time.monotonic() < until:
        channel.connection.process_data_events(time_limit=0.5)
        for properties, answer in answers:
            if properties.correlation_id == invocation_id:
                return json.loads(answer)
        answers.clear()
    return None


def main():
    parser = argparse.ArgumentParser(description="Run one Okta operation and print its result.")
    parser.add_argument("subtool", help="such as get_user; `okta-worker catalog` lists them")
    parser.add_argument("arguments", nargs="?", default="{}", help="a JSON object")
    parser.add_argument("--connection", default="prod", help="the Okta org, as the worker names it")
    parser.add_argument("--seconds", type=float, default=30, help="how long to wait")
    options = parser.parse_args()

    parameters = pika.URLParameters(os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f"))
    connection = pika.BlockingConnection(parameters)
    try:
        result = call(
            connection.channel(),
            parameters.credentials.username,
            options.connection,
            options.subtool,
            json.loads(options.arguments),
            options.seconds,
        )
    finally:
        if connection.is_open:
            connection.close()
    if result is None:
        print("no answer; is a worker running?", file=sys.stderr)
        return 3
    print(json.dumps(result, indent=2, ensure_ascii=False))
    # `planned` is the success of a dry run.
    return 0 if result["status"] in ("succeeded", "planned") else 1


if __name__ == "__main__":
    sys.exit(main())
