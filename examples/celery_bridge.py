#!/usr/bin/env python3
"""Celery tasks that are run by okta-worker: a bridge for applications that speak Celery.

    AMQP_URL=amqp://guest:guest@127.0.0.1:5672/%2f OKTA_CONNECTION=sandbox \\
        celery -A celery_bridge worker --pool solo     # in examples/
    python3 -c 'from celery_bridge import okta; print(okta.delay("get_user", {"user_id": "…"}).get())'

okta-worker does not speak Celery's protocol itself: a task of Celery's names a Python function and its
arguments, and its retries would repeat what must not be repeated. So a small Celery worker takes the task,
hands it to the queue of invocations and waits there for the answer; Okta's limits, retries and never doing a
thing twice stay with okta-worker. The task's id is the invocation's: a task that Celery delivers again is the
same invocation, and says so.

Needs `celery` (pip install celery), which brings kombu.
"""

import json
import os
import socket
import time
from datetime import datetime, timedelta, timezone

import celery
import kombu

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
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
