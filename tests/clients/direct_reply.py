"""RPC by direct reply-to, with pika: what an agent does, against a worker and the simulated org.

Reads AMQP_URL: the user `caller` of tests/clients/run.py, which may use connection `prod` for everything but
credentials.
"""

import json
import os
import time
import uuid

import pika

WAIT = 30  # seconds; the slowest of these takes well under one


class Agent:
    """One channel that asks and gets its answers."""

    def __init__(self, url):
        self.parameters = pika.URLParameters(url)
        self.connection = pika.BlockingConnection(self.parameters)
        self.channel = self.connection.channel()
        # With confirms, `basic_publish` raises what RabbitMQ refuses.
        self.channel.confirm_delivery()
        self.answers = {}
        self.channel.basic_consume("amq.rabbitmq.reply-to", self.keep, auto_ack=True)

    def keep(self, _channel, _method, properties, body):
        self.answers[properties.correlation_id] = (properties, json.loads(body))

    def ask(self, subtool, arguments=None, options=None, key="prod"):
        identity = str(uuid.uuid4())
        # Not the id, so that echoing is told apart from making one up.
        correlation = f"correlation of {identity}"
        body = {"subtool": subtool}
        if arguments is not None:
            body["arguments"] = arguments
        if options is not None:
            body["options"] = options
        self.channel.basic_publish(
            "okta.invocations",
            key,
            json.dumps(body),
            pika.BasicProperties(
                message_id=identity,
                correlation_id=correlation,
                reply_to="amq.rabbitmq.reply-to",
                timestamp=int(time.time()),
                user_id=self.parameters.credentials.username,
            ),
        )
        until = time.monotonic() + WAIT
        while correlation not in self.answers:
            assert time.monotonic() < until, f"{subtool}: no answer within {WAIT} s"
            self.connection.process_data_events(time_limit=0.2)
        properties, result = self.answers.pop(correlation)
        assert result["id"] == identity, result
        assert properties.message_id == f"{identity}.result", properties
        assert properties.type == "okta.result", properties
        assert properties.content_type == "application/json", properties
        return result

    def done(self, effect, *question, **more):
        """Asks for something that must succeed."""
        result = self.ask(*question, **more)
        assert (result["status"], result["effect"]) == ("succeeded", effect), result
        assert result["connection"] == "prod" and result["subtool"] == question[0], result
        assert result["okta_calls"] >= 1 and result["okta_request_ids"], result
        return result["result"]

    def planned(self, subtool, arguments):
        """Asks what a write would do."""
        result = self.ask(subtool, arguments, {"dry_run": True})
        assert (result["status"], result["effect"]) == ("planned", "none"), result
        return result["result"]

    def refused(self, code, path, *question, **more):
        """Asks for something that must fail, and change nothing."""
        result = self.ask(*question, **more)
        assert (result["status"], result["effect"]) == ("failed", "none"), result
        assert "result" not in result, result
        assert (result["error"]["code"], result["error"]["path"]) == (code, path), result
        return result["error"]


def main():
    agent = Agent(os.environ["AMQP_URL"])
    tag = uuid.uuid4().hex[:12]
    login = f"jane.{tag}@example.com"
    profile = {"login": login, "email": login, "firstName": "Jane", "lastName": "Doe"}

    # A dry run writes nothing, or the real one behind it would find the login taken.
    plan = agent.planned("create_user", {"profile": profile})
    assert plan["predicted"] == {"effect": "applied", "error": None}, plan

    user = agent.done("applied", "create_user", {"profile": profile})
    assert user["profile"]["login"] == login, user

    found = agent.done("none", "get_user", {"user_id": login}, {"fields": ["id", "profile.email"]})
    assert found == {"id": user["id"], "profile": {"email": login}}, found

    group = agent.done("applied", "create_group", {"name": f"Testers {tag}"})
    membership = {"group_id": group["id"], "user_id": user["id"]}
    assert agent.done("applied", "add_user_to_group", membership) == {}
    # Twice is as good as once; Okta does not tell the difference.
    assert agent.done("applied", "add_user_to_group", membership) == {}
    members = agent.done("none", "list_group_members", {"group_id": group["id"]}, {"fields": ["id"]})
    assert members["items"] == [{"id": user["id"]}] and members["complete"] is True, members

    page = agent.done("none", "list_users", {"limit": 3}, {"fields": ["id", "profile.login"]})
    assert page["count"] == len(page["items"]) == 3 and page["complete"] is False and page["next"], page
    for item in page["items"]:
        assert set(item) == {"id", "profile"} and set(item["profile"]) == {"login"}, item
    following = agent.done("none", "list_users", {"limit": 3, "after": page["next"]}, {"fields": ["id"]})
    first = {item["id"] for item in page["items"]}
    assert first.isdisjoint(item["id"] for item in following["items"]), (page, following)

    nobody = {"user_id": f"nobody.{tag}@example.com"}
    missing = agent.refused("not_found", "arguments.user_id", "get_user", nobody)
    assert missing["retryable"] is False and missing["okta"]["status"] == 404, missing
    agent.refused("invalid_arguments", "arguments.user", "get_user", {"user": login})
    unknown = agent.refused("unknown_subtool", "subtool", "get_users")
    assert "get_user" in unknown["message"], unknown
    agent.refused("invalid_message", "properties.routing_key", "get_user", {"user_id": login}, key="prod.vip")
    permission = agent.ask("reset_user_password", {"user_id": login})
    assert permission["error"]["code"] == "not_permitted" and permission["okta_calls"] == 0, permission

    # RabbitMQ itself keeps a caller off a connection that is not its own.
    try:
        agent.ask("get_user", {"user_id": login}, key="other")
    except pika.exceptions.ChannelClosedByBroker as closed:
        assert closed.reply_code == 403, closed
    else:
        raise AssertionError("published to a connection without permission")
    print("direct reply-to: 15 conversations as they should be")


if __name__ == "__main__":
    main()
