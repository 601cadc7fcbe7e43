#!/usr/bin/env python3
"""A bulk job creates a user for each row of a CSV file and says what became of them.

    AMQP_URL=amqp://guest:guest@127.0.0.1:5672/%2f \\
        examples/bulk_onboarding.py examples/onboard.csv --connection sandbox --declare

Everything survives a restart of RabbitMQ or of the worker: the messages are persistent, RabbitMQ confirms
each, and the results wait in a durable queue. Rows go to the bulk lane, so that a thousand of them do not
delay an agent.

The columns are the arguments of `create_user`, a dot leading inwards; an empty cell is left out. Run it again
on the same file and every row fails with `already_exists`: nobody is created twice.

Exits 0 if all rows succeeded, 1 if some failed, 2 for wrong arguments or a missing package, and 3 if results
are missing (no broker, no result in time, or RabbitMQ refused).

Needs `aio-pika` (Debian: python3-aio-pika).
"""

import argparse
import asyncio
import csv
import hashlib
import json
import logging
import os
import sys
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

try:
    import aio_pika
    import aiormq
    import pamqp.exceptions
    from yarl import URL
except ModuleNotFoundError:
    print(
        "the package `aio-pika` is missing: apt-get install python3-aio-pika, or pip install aio-pika",
        file=sys.stderr,
    )
    sys.exit(2)

CONNECT_MAX = 10  # seconds


class NoBroker(Exception):
    """There is no connection to RabbitMQ; the text says where, why and what to do."""


def rows(file):
    """The arguments of each row, with the id of its invocation."""
    # The same row of the same file is the same invocation, whoever sends it and how often: the id is
    # made from the file's content, not from the clock.
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    with file.open(newline="", encoding="utf-8") as text:
        for number, row in enumerate(csv.DictReader(text), start=1):
            arguments = {}
            for path, cell in row.items():
                if cell:
                    *parents, leaf = path.split(".")
                    place = arguments
                    for parent in parents:
                        place = place.setdefault(parent, {})
                    place[leaf] = cell
            yield f"{digest}.{number}", arguments


def broker(text):
    """The URL with the port and the user that it leaves out."""
    url = URL(text)
    if url.scheme not in ("amqp", "amqps"):
        raise ValueError("another scheme")
    port = url.port or (5671 if url.scheme == "amqps" else 5672)
    if not url.user:
        url = url.with_user("guest").with_password("guest")
    return url.with_host(url.host or "localhost").with_port(port)


async def connect(url):
    try:
        return await aio_pika.connect_robust(url, timeout=CONNECT_MAX)
    except (
        aiormq.exceptions.AMQPError,
        pamqp.exceptions.PAMQPException,  # older versions, for a virtual host that does not exist
        OSError,
        asyncio.TimeoutError,
    ) as error:
        raise NoBroker(
            f"failed to connect to RabbitMQ at {url.host}:{url.port} as user `{url.user}`"
            f" ({str(error) or 'no answer'}): start RabbitMQ there, or correct AMQP_URL"
        ) from error


async def submit(url, options):
    async with await connect(url) as connection:
        # Channels of aio-pika confirm by default: `publish` returns when RabbitMQ has the message safely.
        channel = await connection.channel()
        if options.declare:
            replies = await channel.declare_queue(options.replies, durable=True)
        else:
            # The operator has declared it; all we may do is read it.
            replies = await channel.get_queue(options.replies, ensure=False)
        exchange = await channel.get_exchange("okta.invocations", ensure=False)

        waiting = {}
        for invocation_id, arguments in rows(options.file):
            await exchange.publish(
                aio_pika.Message(
                    json.dumps({"subtool": "create_user", "arguments": arguments}).encode(),
                    message_id=invocation_id,
                    correlation_id=invocation_id,
                    reply_to=options.replies,
                    timestamp=datetime.now(timezone.utc),
                    user_id=url.user,
                    content_type="application/json",
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                ),
                routing_key=f"{options.connection}.bulk",
            )
            waiting[invocation_id] = arguments
        print(f"{len(waiting)} rows sent")

        effects = Counter()
        failures = []
        async with replies.iterator(timeout=options.seconds) as messages:
            while waiting:
                message = await messages.__anext__()
                # Acknowledged when the block ends without an error: a crash in it brings the result again.
                async with message.process():
                    arguments = waiting.pop(message.correlation_id, None)
                    if arguments is None:
                        # Results come at least once, and a former run may have left some.
                        continue
                    result = json.loads(message.body)
                    effects[result["effect"]] += 1
                    if result["status"] == "failed":
                        login = arguments.get("profile", {}).get("login", "a row without a login")
                        failures.append(f"{login}: {result['error']['code']}: {result['error']['message']}")

    # What matters to the job is what changed in Okta, not how often it was tried.
    for effect, rows_of_it in sorted(effects.items()):
        print(f"{effect:>10}  {rows_of_it}")
    for failure in failures:
        print(failure)
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description="Create a user in Okta for each row of a CSV file.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--connection", default="prod", help="the Okta org, as the worker names it")
    parser.add_argument("--replies", default="replies.onboarding", help="the queue for the results")
    parser.add_argument("--declare", action="store_true", help="declare that queue, where we may")
    parser.add_argument("--seconds", type=float, default=120, help="how long to wait for the next result")
    options = parser.parse_args()
    if not options.file.is_file():
        parser.error(f"there is no file {options.file}")
    try:
        url = broker(os.environ.get("AMQP_URL") or "amqp://guest:guest@127.0.0.1:5672/%2f")
    except ValueError:  # its text may show the password
        parser.error("AMQP_URL is not a URL such as amqp://user:password@host:5672/vhost")
    # The library logs a failed connection too; one line of ours is enough.
    logging.basicConfig(level=logging.CRITICAL)
    try:
        return asyncio.run(submit(url, options))
    except NoBroker as reason:
        print(reason, file=sys.stderr)
    except asyncio.TimeoutError:
        print(f"no result for {options.seconds:g} s; they will wait in {options.replies}", file=sys.stderr)
    except aiormq.exceptions.ChannelClosed as refusal:
        print(
            f"RabbitMQ refused ({refusal}): is a worker running, was the reply queue declared,"
            f" and may user `{url.user}` publish for connection `{options.connection}`?",
            file=sys.stderr,
        )
    return 3


if __name__ == "__main__":
    sys.exit(main())
