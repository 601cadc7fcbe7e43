"""A real MCP client against `okta-worker mcp`, through RabbitMQ and a worker, to the simulated org.

    AMQP_URL=… python3 tests/clients/mcp_client.py target/release/okta-worker FOLDER

Needs the package `mcp`, from version 2. FOLDER is for its files. Called by `tests/outside mcp`.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from stand import effects, stand

LIMIT = 5  # reads of one user in a window
WINDOW = 5  # seconds


async def talk(session, org):
    """The whole conversation."""
    await session.initialize()
    tools = {tool.name: tool for tool in (await session.list_tools()).tools}
    assert "get_user" in tools and "suspend_user" in tools, sorted(tools)
    assert "delete_user" not in tools, "a destructive tool is offered that is not enabled"
    assert (
        tools["get_user"].annotations.read_only_hint and not tools["suspend_user"].annotations.read_only_hint
    )
    print(f"{len(tools)} tools, none of them destructive")

    found = await session.call_tool(
        "list_users", {"limit": 1, "options": {"fields": ["id", "profile.login"]}}
    )
    assert not found.is_error, found
    user = found.structured_content["result"]["items"][0]
    assert sorted(user) == ["id", "profile"], user
    got = await session.call_tool("get_user", {"user_id": user["id"]})
    assert got.structured_content["result"]["profile"]["login"] == user["profile"]["login"]
    assert json.loads(got.content[0].text) == got.structured_content
    print("a user was found and read")

    refused = await session.call_tool("delete_user", {"user_id": user["id"]})
    assert refused.is_error and "does not enable `delete_user`" in refused.content[0].text, refused
    wrong = await session.call_tool("get_user", {"user": user["id"]})
    error = wrong.structured_content["error"]
    assert wrong.is_error and error["code"] == "invalid_arguments", wrong
    assert error["path"] == "arguments.user" and "`user_id`" in error["message"], error
    print("refused:", refused.structured_content["error"]["message"])
    print("taught:", error["message"])

    planned = await session.call_tool("suspend_user", {"user_id": user["id"], "options": {"dry_run": True}})
    assert planned.structured_content["status"] == "planned", planned
    assert "user.suspended" not in effects(org)

    # The window is full; what comes then waits, and hears so.
    told = []

    async def progress(seconds, _, message):
        told.append((seconds, message))

    calls = [
        session.call_tool("get_user", {"user_id": user["id"]}, progress_callback=progress)
        for _ in range(3 * LIMIT)
    ]
    answers = await asyncio.gather(*calls)
    assert not any(answer.is_error for answer in answers), answers
    assert told and all("rate limit of `user_read`" in message for _, message in told), told
    print(f"heard {len(told)} times of a wait, such as: {told[0][1]}")

    # What waits is dropped when nobody wants it any more.
    before = len(effects(org))
    name = "nobody@mcp.example"
    profile = {"firstName": "No", "lastName": "Body", "email": name, "login": name}
    # `short` is neither an id nor a whole login, so the user is read first, and that waits.
    filling = [
        asyncio.create_task(session.call_tool("get_user", {"user_id": user["id"]})) for _ in range(2 * LIMIT)
    ]
    await asyncio.sleep(0.5)
    waiting = asyncio.create_task(session.call_tool("suspend_user", {"user_id": "short"}))
    await asyncio.sleep(1)
    waiting.cancel()  # the SDK tells the server
    await asyncio.gather(*filling)
    assert len(effects(org)) == before
    created = await session.call_tool("create_user", {"profile": profile, "activate": False})
    assert not created.is_error and created.structured_content["effect"] == "applied", created
    print("a call was cancelled, and another one was done")


async def main(binary, folder):
    """Has the client talk with the server."""
    with stand(binary, folder, "agents", ["read", "write"], WINDOW, f"user_read={LIMIT}") as (
        org,
        config,
        log,
    ):
        # The server starts without any credential of Okta's.
        environment = {"PATH": os.environ["PATH"], "AMQP_URL": os.environ["AMQP_URL"]}
        arguments = ["--config", str(config), "mcp", "--connection", "agents"]
        server = StdioServerParameters(command=binary, args=arguments, env=environment)
        async with stdio_client(server) as (read, write):
            async with ClientSession(read, write, read_timeout_seconds=60) as session:
                await talk(session, org)
        time.sleep(1)
        assert "has cancelled" in log.read_text(), "the worker has not dropped the call that was cancelled"


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
