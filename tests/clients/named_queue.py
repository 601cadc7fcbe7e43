"""Invocations on the bulk lane, with aio-pika, answered on a named durable queue that outlives its caller.

Reads AMQP_URL and REPLY_QUEUE, which has been declared and may be read.
"""

import asyncio
import json
import os
import uuid
from datetime import datetime, timezone

import aio_pika
from yarl import URL

WAIT = 30  # seconds


async def send(exchange, user, reply_to, questions):
    """Publishes all, each confirmed; the correlation ids are the keys of `questions`."""

    async def one(correlation, body):
        message = aio_pika.Message(
            json.dumps(body).encode(),
            message_id=f"{correlation}.id",
            correlation_id=correlation,
            reply_to=reply_to,
            timestamp=datetime.now(timezone.utc),
            user_id=user,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await exchange.publish(message, routing_key="prod.bulk")

    await asyncio.gather(*(one(correlation, body) for correlation, body in questions.items()))


async def collect(queue, questions):
    """The answer to each invocation, by correlation id. Results come at least once: the last counts."""
    answers = {}
    async with queue.iterator(timeout=WAIT) as incoming:
        while set(answers) != set(questions):
            message = await incoming.__anext__()
            async with message.process():
                answers[message.correlation_id] = (message, json.loads(message.body))
    return answers


async def main():
    url, reply_to = os.environ["AMQP_URL"], os.environ["REPLY_QUEUE"]
    user, tag = URL(url).user, uuid.uuid4().hex[:12]
    logins = [f"{name}.{tag}@example.com" for name in ("ana", "omar", "zoe", "kofi", "mei")]
    questions = {
        f"{tag}.{row}": {
            "subtool": "create_user",
            "arguments": {
                "profile": {"login": login, "email": login, "firstName": "Row", "lastName": str(row)}
            },
        }
        for row, login in enumerate(logins)
    }
    nobody, everybody = f"{tag}.nobody", f"{tag}.everybody"
    questions[nobody] = {"subtool": "suspend_user", "arguments": {"user_id": f"nobody.{tag}@example.com"}}
    questions[everybody] = {
        "subtool": "list_users",
        "arguments": {"limit": 250},
        "options": {"fields": ["id"]},
    }

    # Sent by one connection that then goes away, and read by another: the queue keeps what is between.
    sender = await aio_pika.connect(url)
    async with sender:
        channel = await sender.channel()
        exchange = await channel.get_exchange("okta.invocations", ensure=False)
        await send(exchange, user, reply_to, questions)

    reader = await aio_pika.connect(url)
    async with reader:
        channel = await reader.channel()
        queue = await channel.get_queue(reply_to, ensure=False)
        answers = await collect(queue, questions)

    for correlation, (message, result) in answers.items():
        assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT, message
        assert message.type == "okta.result", message
        assert result["id"] == f"{correlation}.id", result
    for row, login in enumerate(logins):
        message, result = answers[f"{tag}.{row}"]
        assert message.message_id == f"{tag}.{row}.id.result", message
        assert (result["status"], result["effect"]) == ("succeeded", "applied"), result
        assert result["result"]["profile"]["login"] == login, result
    _, refused = answers[nobody]
    assert (refused["status"], refused["effect"]) == ("failed", "none"), refused
    assert refused["error"]["code"] == "not_found", refused
    _, listed = answers[everybody]
    ids = [item["id"] for item in listed["result"]["items"]]
    assert listed["okta_calls"] > 1, "a list of 250 users fits no page of Okta's"
    assert listed["result"]["count"] == len(set(ids)) == 250, listed["result"]["count"]
    print(f"named queue: {len(questions)} invocations answered, one from {listed['okta_calls']} pages")


if __name__ == "__main__":
    asyncio.run(main())
