#!/usr/bin/env python3
"""A bulk job creates a user for each row of a CSV file and says what became of them.

    AMQP_URL=amqp://guest:guest@127.0.0.1:5672/%2f \\
        examples/bulk_onboarding.py examples/onboard.csv --connection sandbox --declare

Everything survives a restart of RabbitMQ or of the worker: the messages are persistent, RabbitMQ confirms
each, and the results wait in a durable queue. Rows go to the bulk lane, so that a thousand of them do not
delay an agent.

The columns are the arguments of `create_user`, a dot leading inwards; an empty cell is left out. Run it again
on the same file and every row fails with `already_exists`: nobody is created twice.

Needs `aio-pika` (Debian: python3-aio-pika). Exits 0 when all rows succeeded, 1 when some failed.
"""

import argparse
import asyncio
import csv
import hashlib
import json
import os
import sys
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

import aio_pika
import aiormq
from yarl import URL


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


async def submit(options):
    url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
    connection = await aio_pika.connect_robust(url)
    async with connection:
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
                    user_id=URL(url).user,
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
    try:
        return asyncio.run(submit(options))
    except asyncio.TimeoutError:
        print(f"no result for {options.seconds:g} s; they will wait in {options.replies}", file=sys.stderr)
    except aiormq.exceptions.ChannelNotFoundEntity as missing:
        print(f"{missing}: is a worker running, and was the reply queue declared?", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
