#!/usr/bin/env python3
"""Celery tasks that are run by okta-worker: a bridge for applications that speak Celery.

    AMQP_URL=amqp://guest:guest@127.0.0.1:5672/%2f OKTA_CONNECTION=sandbox \\
        celery -A celery_bridge worker --pool solo                  # in examples/
    python3 celery_bridge.py get_user '{"user_id": "jane@example.com"}'

The second command does what an application does: `from celery_bridge import okta`, then
`okta.delay("get_user", {"user_id": "…"}).get()`.

okta-worker does not speak Celery's protocol itself: a Celery task names a Python function and its arguments,
and Celery's retries would repeat writes. So a small Celery worker takes the task, publishes an invocation and
waits for its result. Okta's limits, retries and deduplication stay with okta-worker. The task's id is the
invocation's: a task that Celery delivers again is the same invocation, and says so.

It exits 0 if the invocation succeeded, 1 if it failed, 2 for wrong arguments or a missing package, and 3
without a result (no broker, or no answer in time). Without a broker, Celery tries for some seconds.

Needs `celery` (pip install celery), which brings kombu.
"""

import argparse
import json
import os
import socket
import sys
import time
from datetime import datetime, timedelta, timezone

try:
    import celery
    import celery.exceptions
    import kombu
except ModuleNotFoundError:
    print("the package `celery` is missing: pip install celery", file=sys.stderr)
    sys.exit(2)

URL = os.environ.get("AMQP_URL") or "amqp://guest:guest@127.0.0.1:5672/%2f"
CONNECTION = os.environ.get("OKTA_CONNECTION", "prod")
SECONDS = 30  # how long a task waits for its answer

app = celery.Celery("celery_bridge", broker=URL, backend="rpc://")
# A task that was in hand when its worker died comes again, and asks okta-worker what became of it.
app.conf.task_acks_late = True
app.conf.task_reject_on_worker_lost = True
app.conf.worker_prefetch_multiplier = 1


class Failed(Exception):
    """What okta-worker says of an invocation that failed."""


@app.task(bind=True, name="okta")
def okta(self, subtool, arguments, **options):
    """Runs one invocation and returns the result message, or raises what went wrong."""
    invocation, again = self.request.id, bool((self.request.delivery_info or {}).get("redelivered"))
    deadline = datetime.now(timezone.utc) + timedelta(seconds=SECONDS)
    options.setdefault("deadline", deadline.isoformat())
    answers = []
    with kombu.Connection(URL) as connection:
        channel = connection.channel()
        replies = kombu.Queue("amq.rabbitmq.reply-to", no_ack=True, no_declare=True)
        hears = kombu.Consumer(channel, [replies], no_ack=True, accept=["json"])
        hears.register_callback(lambda body, message: answers.append((message, body)))
        with hears:
            kombu.Producer(channel).publish(
                json.dumps({"subtool": subtool, "arguments": arguments, "options": options}),
                exchange="okta.invocations",
                routing_key=CONNECTION,
                content_type="application/json",
                content_encoding="utf-8",
                message_id=invocation,
                correlation_id=invocation,
                reply_to="amq.rabbitmq.reply-to",
                user_id=connection.userid,
                timestamp=int(time.time()),
                delivery_mode=2,
                headers={"okta-resent": again},
            )
            until = time.monotonic() + SECONDS + 5
            while time.monotonic() < until:
                try:
                    connection.drain_events(timeout=1)
                except socket.timeout:
                    continue
                for message, result in answers:
                    if message.properties.get("correlation_id") == invocation:
                        if result["status"] == "failed":
                            raise Failed(json.dumps(result["error"]))
                        return result
    raise TimeoutError(f"no answer within {SECONDS} s; is a worker running?")


def main():
    parser = argparse.ArgumentParser(description="Run one Okta operation by a Celery task.")
    parser.add_argument("subtool", metavar="SUBTOOL", help="such as get_user; see `okta-worker catalog`")
    parser.add_argument("arguments", metavar="ARGUMENTS", type=json.loads, help="a JSON object")
    options = parser.parse_args()
    try:
        if not URL.startswith(("amqp://", "amqps://")):
            raise ValueError("another scheme")
        broker = kombu.Connection(URL)
    except ValueError:
        parser.error("AMQP_URL is not a URL such as amqp://user:password@host:5672/vhost")
    refusals = (*broker.connection_errors, *broker.channel_errors, kombu.exceptions.OperationalError)
    try:
        task = okta.delay(options.subtool, options.arguments)
        # The task itself gives up after SECONDS and 5 more.
        result = task.get(timeout=SECONDS + 10, propagate=False)
    except celery.exceptions.TimeoutError:
        print("no answer in time: does the Celery worker run?", file=sys.stderr)
        return 3
    except refusals as error:
        known = broker.info()
        print(
            f"failed to connect to RabbitMQ at {known['hostname']}:{known['port']} as user `{broker.userid}`"
            f" ({error}): start RabbitMQ there, or correct AMQP_URL",
            file=sys.stderr,
        )
        return 3
    if not task.successful():
        print(result, file=sys.stderr)
        return 3 if isinstance(result, TimeoutError) else 1
    print(json.dumps(result, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
