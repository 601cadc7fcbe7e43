#!/usr/bin/env python3
"""An HR system ends somebody's access; another program watches what became of it.

    examples/hr_termination.py watch --connection sandbox &
    examples/hr_termination.py send jane@example.com --ticket HR-4711 --connection sandbox

HR systems fire and forget: `send` names no `reply_to`. Results without one go to the exchange `okta.results`
with the routing key `<connection>.<subtool>.<status>`. Programs that need them bind queues of their own: an
audit trail, a chat room for failures, a dashboard. A result that no queue is bound for is kept for a week.

Both read AMQP_URL. `send` needs what every producer needs; `watch` needs a user that may configure, write
and read `hr.terminations` (write, to bind it) and read `okta.results`.

Exits 0 if RabbitMQ has the message safely (`send`) or after `--count` results (`watch`), 2 for wrong
arguments or a missing package, and 3 without a broker or if RabbitMQ refuses.

Needs `pika` (Debian: python3-pika).
"""

import argparse
import json
import os
import sys
import time

try:
    import pika
except ModuleNotFoundError:
    print("the package `pika` is missing: apt-get install python3-pika, or pip install pika", file=sys.stderr)
    sys.exit(2)

QUEUE = "hr.terminations"


def send(channel, user, options):
    body = {
        "subtool": "deactivate_user",
        "arguments": {"user_id": options.user},
        # Goes to the worker's log, so that an auditor finds the ticket behind the change.
        "options": {"reason": f"termination, {options.ticket}"},
    }
    # `basic_publish` raises unless RabbitMQ confirms that it has the message safely.
    channel.confirm_delivery()
    channel.basic_publish(
        exchange="okta.invocations",
        # Ending access must not wait behind a bulk job, so it goes to the interactive lane.
        routing_key=f"{options.connection}.interactive",
        body=json.dumps(body),
        properties=pika.BasicProperties(
            # The HR event's own id: sent twice by mistake, it is still one invocation.
            message_id=f"termination-{options.ticket}",
            timestamp=int(time.time()),
            user_id=user,
            content_type="application/json",
            delivery_mode=2,
        ),
    )
    print(f"asked to deactivate {options.user}")


def watch(channel, _user, options):
    channel.queue_declare(QUEUE, durable=True)
    # Any status; `….deactivate_user.failed` alone would be the queue of an alarm.
    channel.queue_bind(QUEUE, "okta.results", f"{options.connection}.deactivate_user.*")
    print(f"watching {QUEUE}", flush=True)
    seen = 0
    for method, _properties, body in channel.consume(QUEUE):
        result = json.loads(body)
        line = f"{result['id']}: {result['status']}, {result['effect']}"
        if result["status"] == "failed":
            line += f", {result['error']['code']}: {result['error']['message']}"
        print(line, flush=True)
        channel.basic_ack(method.delivery_tag)
        seen += 1
        if seen == options.count:
            return


def main():
    parser = argparse.ArgumentParser(description="End access in Okta, and watch it end.")
    parts = parser.add_subparsers(required=True)
    sender = parts.add_parser("send", help="what the HR system does")
    sender.add_argument("user", help="a login or an Okta id")
    sender.add_argument("--ticket", required=True, help="the HR event, such as HR-4711")
    sender.set_defaults(part=send)
    watcher = parts.add_parser("watch", help="what somebody who cares does")
    watcher.add_argument("--count", type=int, default=0, help="stop after so many (default: never)")
    watcher.set_defaults(part=watch)
    for part in (sender, watcher):
        part.add_argument("--connection", default="prod", help="the Okta org, as the worker names it")
    options = parser.parse_args()

    url = os.environ.get("AMQP_URL") or "amqp://guest:guest@127.0.0.1:5672/%2f"
    try:
        if not url.startswith(("amqp://", "amqps://")):
            raise ValueError("another scheme")
        parameters = pika.URLParameters(url)
    except ValueError:  # its text may show the password
        parser.error("AMQP_URL is not a URL such as amqp://user:password@host:5672/vhost")
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
        options.part(connection.channel(), user, options)
    except pika.exceptions.AMQPChannelError as refusal:
        reason = getattr(refusal, "reply_text", refusal)
        print(
            f"RabbitMQ refused ({reason}): is a worker running, and may user `{user}` do this?",
            file=sys.stderr,
        )
        return 3
    except (pika.exceptions.AMQPError, OSError) as error:
        reason = getattr(error, "reply_text", error)
        print(f"lost RabbitMQ at {broker} ({reason})", file=sys.stderr)
        return 3
    finally:
        if connection.is_open:
            connection.close()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
