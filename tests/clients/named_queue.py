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


async def collect(queue, ends):
    """Messages by correlation id, until each of `ends` has had its last."""
    messages = {correlation: [] for correlation in ends}
    waiting = set(ends)
    async with queue.iterator(timeout=WAIT) as incoming:
        while waiting:
            message = await incoming.__anext__()
            async with message.process():
                result = json.loads(message.body)
                messages[message.correlation_id].append((message, result))
                if result.get("page", {}).get("last", True):
                    waiting.discard(message.correlation_id)
    return messages


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
    nobody, count, pages = f"{tag}.nobody", f"{tag}.count", f"{tag}.pages"
    questions[nobody] = {"subtool": "suspend_user", "arguments": {"user_id": f"nobody.{tag}@example.com"}}
    questions[count] = {"subtool": "list_groups", "options": {"count_only": True}}
    questions[pages] = {
        "subtool": "list_users",
        "arguments": {"limit": 250},
        "options": {"stream": True, "fields": ["id"]},
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
        messages = await collect(queue, list(questions))

    for correlation, of_one in messages.items():
        for message, result in of_one:
            assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT, message
            assert message.type == "okta.result", message
            assert result["id"] == f"{correlation}.id", result
    for row, login in enumerate(logins):
        message, result = messages[f"{tag}.{row}"][0]
        assert message.message_id == f"{tag}.{row}.id.result", message
        assert (result["status"], result["effect"]) == ("succeeded", "applied"), result
        assert result["result"]["profile"]["login"] == login, result
    _, refused = messages[nobody][0]
    assert (refused["status"], refused["effect"]) == ("failed", "none"), refused
    assert refused["error"]["code"] == "not_found", refused
    _, counted = messages[count][0]
    assert counted["result"]["count"] > 0 and not counted["result"].get("items"), counted
    streamed = messages[pages]
    assert len(streamed) > 1, "a list of 250 users fits no page of Okta's"
    for index, (message, result) in enumerate(streamed):
        assert message.message_id == f"{pages}.id.{index}", message
        assert result["page"] == {"index": index, "last": index == len(streamed) - 1}, result
        assert result["result"]["count"] == len(result["result"]["items"]), result
    ids = [item["id"] for _, result in streamed for item in result["result"]["items"]]
    assert len(ids) == len(set(ids)) == 250, (len(ids), len(set(ids)))
    print(f"named queue: {len(questions)} invocations answered, one of them in {len(streamed)} pages")


if __name__ == "__main__":
    asyncio.run(main())
