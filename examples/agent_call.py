#!/usr/bin/env python3
"""An agent sends one invocation and waits for its result.

    AMQP_URL=amqp://guest:guest@127.0.0.1:5672/%2f \\
        examples/agent_call.py get_user '{"user_id": "jane@example.com"}' --connection sandbox

Uses RabbitMQ's direct reply-to: the agent declares no queue and leaves nothing behind. The price: RabbitMQ
drops a result that comes after the agent has left. An agent that cannot afford that uses a named queue, as
bulk_onboarding.py does.

agent_call.mjs and agent_call.go take the same arguments and exit with the same codes: 0 if the invocation
succeeded, 1 if it failed, 2 for wrong arguments or a missing package, and 3 without a result (no broker, no
answer in time, or a message that RabbitMQ refused).

Needs `pika` (Debian: python3-pika).
"""

import argparse
import json
import os
import sys
import time
import uuid
from datetime import datetime, timedelta, timezone

try:
    import pika
except ModuleNotFoundError:
    print("the package `pika` is missing: apt-get install python3-pika, or pip install pika", file=sys.stderr)
    sys.exit(2)

# Seconds: the worker finishes an invocation that has begun before its deadline; the result takes its time.
GRACE = 5
SECONDS_MAX = 86_400


def call(channel, user, options):
    """Sends one invocation and returns its result, or None if none came in time."""
    answers = []
    # With confirms, publishing raises if RabbitMQ refuses: no such exchange, or no permission to publish.
    channel.confirm_delivery()
    # The consumer of the replies and the publisher must be the same channel, without acknowledgements.
    channel.basic_consume(
        "amq.rabbitmq.reply-to",
        lambda _channel, _method, properties, body: answers.append((properties, body)),
        auto_ack=True,
    )
    invocation_id = str(uuid.uuid4())
    deadline = datetime.now(timezone.utc) + timedelta(seconds=options.seconds)
    body = {
        "subtool": options.subtool,
        "arguments": options.arguments,
        # Nobody waits any longer than that, so the worker need not begin later. It answers `rate_limited` at
        # once if Okta's limits do not allow it in time.
        "options": {"deadline": deadline.isoformat()},
    }
    channel.basic_publish(
        exchange="okta.invocations",
        # The connection alone as the routing key means its interactive lane.
        routing_key=options.connection,
        body=json.dumps(body),
        properties=pika.BasicProperties(
            message_id=invocation_id,
            correlation_id=invocation_id,
            reply_to="amq.rabbitmq.reply-to",
            timestamp=int(time.time()),
            # The caller. RabbitMQ refuses the message if it is not the user of this connection.
            user_id=user,
            content_type="application/json",
            delivery_mode=2,
        ),
    )
    until = time.monotonic() + options.seconds + GRACE
    while time.monotonic() < until:
        channel.connection.process_data_events(time_limit=0.5)
        for properties, answer in answers:
            if properties.correlation_id == invocation_id:
                return json.loads(answer)
        answers.clear()
    return None


def json_object(text):
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("not a JSON object")
    return value


def positive(text):
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"not a number between 0 and {SECONDS_MAX}: {text}")
    return value


def main():
    parser = argparse.ArgumentParser(
        usage="%(prog)s SUBTOOL ARGUMENTS [--connection NAME] [--seconds N]",
        description="Run one Okta operation and print its result.",
        allow_abbrev=False,
    )
    parser.add_argument("subtool", metavar="SUBTOOL", help="such as get_user; see `okta-worker catalog`")
    parser.add_argument("arguments", metavar="ARGUMENTS", type=json_object, help="a JSON object")
    parser.add_argument(
        "--connection",
        metavar="NAME",
        default="prod",
        help="the worker's name for the Okta org (default: prod)",
    )
    parser.add_argument(
        "--seconds", metavar="N", type=positive, default=30, help="how long to wait (default: 30)"
    )
    options = parser.parse_args()

    url = os.environ.get("AMQP_URL") or "amqp://guest:guest@127.0.0.1:5672/%2f"
    try:
        if not url.startswith(("amqp://", "amqps://")):
            raise ValueError("another scheme")
        parameters = pika.URLParameters(url)
    except ValueError:  # its text may show the password
        parser.error("AMQP_URL is not a URL such as amqp://user:password@host:5672/vhost")
    # RabbitMQ blocks publishers while it is short of memory or disk.
    parameters.blocked_connection_timeout = options.seconds
    broker, user = f"{parameters.host}:{parameters.port}", parameters.credentials.username
    try:
        connection = pika.BlockingConnection(parameters)
    except (pika.exceptions.AMQPError, OSError) as error:
        reason = f" ({error})" if str(error) else ""  # pika does not say why a TCP connection failed
        print(
            f"failed to connect to RabbitMQ at {broker} as user `{user}`{reason}:"
            " start RabbitMQ there, or correct AMQP_URL",
            file=sys.stderr,
        )
        return 3
    try:
        result = call(connection.channel(), user, options)
    except pika.exceptions.AMQPChannelError as refusal:
        reason = getattr(refusal, "reply_text", refusal)
        print(
            f"RabbitMQ refused the invocation ({reason}): is a worker running,"
            f" and may user `{user}` publish for connection `{options.connection}`?",
            file=sys.stderr,
        )
        return 3
    except (pika.exceptions.AMQPError, OSError) as error:
        reason = getattr(error, "reply_text", error)
        print(f"lost RabbitMQ at {broker} ({reason}): the invocation may still run", file=sys.stderr)
        return 3
    finally:
        if connection.is_open:
            connection.close()
    if result is None:
        print("no answer in time: is a worker running?", file=sys.stderr)
        return 3
    print(json.dumps(result, indent=2, ensure_ascii=False))
    # `planned` is the success of a dry run.
    return 0 if result["status"] in ("succeeded", "planned") else 1


if __name__ == "__main__":
    sys.exit(main())
