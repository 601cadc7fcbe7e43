"""Okta's Python SDK, unchanged, against the simulated org: one line per call with its outcome.

    python sdk.py URL TOKEN URL_OF_AN_ORG_THAT_DEMANDS_DPOP PRIVATE_KEY_FILE

Exits 1 if a call ends otherwise than it should. What the SDK itself breaks stands in SDK_BREAKS.
"""

import asyncio
import os
import sys
import urllib.request

import okta.models as models
from okta.client import Client
from okta.pagination import PaginationHelper

# Calls that fail within the SDK whatever the server answers, each with its reason.
SDK_BREAKS = {}

USERS = 450  # what the org begins with
url, token, dpop_url, key_file = sys.argv[1:]
failed = []


def show(name, good, outcome):
    reason = SDK_BREAKS.get(name)
    if reason is not None:
        verdict = f"the SDK: {reason}"
        good = not good  # a row that is no longer true must go
    else:
        verdict = "ok" if good else "FAILED"
    print(f"{name:36} {verdict:8} {outcome}")
    if not good:
        failed.append(name)


async def call(name, awaited, check=lambda result: True):
    """Awaits one call; shows and returns its result."""
    try:
        result = await awaited
    except Exception as error:  # the SDK's models raise errors of many kinds
        show(name, False, f"{type(error).__name__}: {str(error)[:200]}")
        return None
    value, error = (result[0], result[-1]) if len(result) == 3 else (None, result[-1])
    if error is not None:
        show(name, False, f"{type(error).__name__}: {str(error)[:200]}")
        return None
    show(name, bool(check(value)), describe(value))
    return value


def describe(value):
    if isinstance(value, list):
        return f"{len(value)} items"
    return " ".join(
        f"{part}={getattr(value, part)}" for part in ("id", "status", "label") if getattr(value, part, None)
    )


async def refused(name, awaited, status):
    """Awaits one call that must be refused."""
    try:
        result = await awaited
    except Exception as error:
        show(name, str(status) in str(getattr(error, "status", error)), f"refused: {str(error)[:100]}")
        return
    error = result[-1]
    code = getattr(error, "status", None)
    show(name, code == status, f"refused: {code} {getattr(error, 'error_code', '')}")


async def pages(name, ask, expected, order=None):
    """Reads a list to its end, page by page."""
    items, after, count = [], None, 0
    while True:
        page, response, error = await ask(after)
        if error is not None:
            return show(name, False, str(error)[:200])
        items, count = items + page, count + 1
        after = PaginationHelper.extract_next_cursor(response.headers)
        if after is None or count > 100:
            break
    ids = [item.id for item in items]
    logins = [item.profile.login.lower() for item in items]
    good = len(ids) == len(set(ids)) == expected
    if order is not None:
        good = good and logins == sorted(logins, reverse=order == "desc")
    show(name, good, f"{len(ids)} users in {count} pages")


def person(name, **more):
    login = f"{name.lower()}@sdk.example"
    return models.UserProfile(first_name=name, last_name="Doe", email=login, login=login, **more)


async def users(client):
    everybody = USERS + 1  # and the administrator
    gone = await call(
        "list_users deactivated", client.list_users(search='status eq "DEPROVISIONED"', limit=200)
    )
    others = everybody - len(gone or [])  # the plain list leaves these out
    await pages("list_users", lambda after: client.list_users(limit=200, after=after), others)
    for order in ("asc", "desc"):
        search = {"search": "profile.login pr", "sort_by": "profile.login", "sort_order": order, "limit": 200}

        def ask(after, search=search):
            return client.list_users(after=after, **search)

        await pages(f"list_users {order}", ask, everybody, order)
    types = await call("list_user_types", client.list_user_types(), lambda types: len(types) == 2)
    password = models.UserCredentialsWritable(password=models.PasswordCredential(value="Correct-horse-7"))
    body = models.CreateUserRequest(profile=person("Jane"), credentials=password)
    jane = await call("create_user", client.create_user(body), lambda user: user.status == "ACTIVE")
    body = models.CreateUserRequest(
        profile=person("Carl"), type=models.CreateUserRequestType(id=types[1].id) if types else None
    )
    carl = await call(
        "create_user of a second type",
        client.create_user(body, activate=False),
        lambda user: user.type.id == types[1].id and user.status == "STAGED",
    )
    await refused(
        "create_user again", client.create_user(models.CreateUserRequest(profile=person("Jane"))), 400
    )
    await call("get_user by login", client.get_user("jane@sdk.example"), lambda user: user.id == jane.id)
    await refused("get_user that is not there", client.get_user("nobody@sdk.example"), 404)
    change = models.UpdateUserRequest(profile=models.UserProfile(department="Support"))
    await call(
        "update_user", client.update_user(jane.id, change), lambda user: user.profile.department == "Support"
    )
    await call("suspend_user", client.suspend_user(jane.id))
    await refused("suspend_user again", client.suspend_user(jane.id), 400)
    await call("unsuspend_user", client.unsuspend_user(jane.id))
    locking = urllib.request.Request(f"{url}/sandbox/lock_out/jane@sdk.example", method="POST")
    with urllib.request.urlopen(locking) as answer:
        show("locked out", answer.status == 204, answer.status)
    await call("unlock_user", client.unlock_user(jane.id))
    await call("activate_user", client.activate_user(carl.id, send_email=False))
    await call("reactivate_user", client.reactivate_user(carl.id, send_email=False))
    await call("reset_factors", client.reset_factors(jane.id))
    await call("list_factors", client.list_factors(jane.id))
    await call("revoke_user_sessions", client.revoke_user_sessions(jane.id, oauth_tokens=True))
    return jane, carl


async def groups(client, jane):
    profile = models.OktaUserGroupProfile(name="Night shift", description="At night")
    group = await call("add_group", client.add_group(models.AddGroupRequest(profile=profile)))
    await call("get_group", client.get_group(group.id), lambda it: it.id == group.id)
    await call(
        "list_groups", client.list_groups(q="Night"), lambda found: [it.id for it in found] == [group.id]
    )
    await call("assign_user_to_group", client.assign_user_to_group(group.id, jane.id))
    members = client.list_group_users(group.id)
    await call("list_group_users", members, lambda found: [it.id for it in found] == [jane.id])
    await call(
        "list_user_groups",
        client.list_user_groups(jane.id),
        lambda found: group.id in [it.id for it in found],
    )
    return group


async def applications(client, jane, group):
    address = models.BookmarkApplicationSettingsApplication(
        request_integration=False, url="https://a.example/b"
    )
    body = models.BookmarkApplication(
        name="bookmark",
        label="Night rota",
        sign_on_mode="BOOKMARK",
        settings=models.BookmarkApplicationSettings(app=address),
    )
    app = await call(
        "create_application", client.create_application(body), lambda it: it.label == "Night rota"
    )
    await call("list_applications", client.list_applications(q="Night rota"), lambda found: len(found) == 1)
    assignment = models.AppUserAssignRequest(id=jane.id, scope="USER")
    await call("assign_user_to_application", client.assign_user_to_application(app.id, assignment))
    await call("list_application_users", client.list_application_users(app.id), lambda found: len(found) == 1)
    priority = models.ApplicationGroupAssignment(priority=0)
    await call("assign_group_to_application", client.assign_group_to_application(app.id, group.id, priority))
    listed = client.list_application_group_assignments(app.id)
    await call(
        "list_application_group_assignments", listed, lambda found: [it.id for it in found] == [group.id]
    )
    await call("list_app_links", client.list_app_links(jane.id))
    await call("unassign_application_from_group", client.unassign_application_from_group(app.id, group.id))
    await call("unassign_user_from_application", client.unassign_user_from_application(app.id, jane.id))
    await refused("delete_application active", client.delete_application(app.id), 403)
    await call("deactivate_application", client.deactivate_application(app.id))
    await call("delete_application", client.delete_application(app.id))


async def schema(client, jane):
    badge = models.UserSchemaAttribute(title="Badge", type="string")
    custom = models.UserSchemaPublic(id="#custom", type="object", properties={"badge": badge})
    body = models.UserSchema(definitions=models.UserSchemaDefinitions(custom=custom))
    await call("update_user_profile", client.update_user_profile("default", body))
    profile = models.UserProfile()
    profile.additional_properties = {"badge": "B-1"}
    change = models.UpdateUserRequest(profile=profile)
    await call("update_user badge", client.update_user(jane.id, change))


async def ends(client, jane, carl, group):
    await call("unassign_user_from_group", client.unassign_user_from_group(group.id, jane.id))
    await call("delete_group", client.delete_group(group.id))
    for user in (jane, carl):
        await call("deactivate_user", client.deactivate_user(user.id))
        await call("delete_user", client.delete_user(user.id))
    await refused("get_user that was deleted", client.get_user(jane.id), 404)
    found = client.list_log_events(filter='eventType eq "user.lifecycle.create"', limit=100)
    await call("list_log_events", found, lambda events: len(events) >= 2)


async def spent(client):
    """Empties the window of one bucket; the SDK waits for the next one and asks again."""
    answers = [await client.get_user("sam.admin@example.com") for _ in range(120)]
    errors = [error for *_, error in answers if error is not None]
    show("get_user 120 times, 100 a window", not errors, f"{len(answers) - len(errors)} answered")


async def proven():
    """A service app whose tokens are bound to a key."""
    with open(key_file) as file:
        key = file.read()
    config = {
        "orgUrl": dpop_url,
        "authorizationMode": "PrivateKey",
        "clientId": "0oaTheApp",
        "privateKey": key,
    }
    async with Client(config | {"scopes": ["okta.users.read"], "dpopEnabled": True}) as client:
        for turn in (1, 2):
            await call(f"list_users with DPoP, {turn}", client.list_users(search="status pr", limit=2))


async def main():
    os.environ["OKTA_TESTING_TESTINGDISABLEHTTPSCHECK"] = "true"  # the SDK's own switch for `http`
    async with Client({"orgUrl": url, "token": token}) as client:
        jane, carl = await users(client)
        group = await groups(client, jane)
        await applications(client, jane, group)
        await schema(client, jane)
        await ends(client, jane, carl, group)
        await spent(client)
    await proven()


asyncio.run(main())
names = ", ".join(failed) or "none"
print(f"{len(failed)} calls of Okta's Python SDK ended otherwise than they should: {names}")
sys.exit(1 if failed else 0)
