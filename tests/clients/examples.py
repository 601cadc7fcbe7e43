"""Runs the examples, against a real worker, RabbitMQ and the simulated org.

    AMQP_URL=… python3 tests/clients/examples.py target/release/okta-worker FOLDER NODE_MODULES

Needs the packages `celery`, `pika` and `aio-pika`, and `amqplib` in NODE_MODULES. FOLDER is for its files.
Called by `tests/outside examples`; with UPDATE_DOCS in the environment it writes what was said to
docs/examples.md.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from stand import effects, stand

TREE = Path(__file__).resolve().parents[2]
PAGE = TREE / "docs" / "examples.md"
RUN_MAX = 90  # seconds for one example

said = []


def run(shown, command, expect=0, cwd=None, **environment):
    """Runs one example as a reader would, and keeps what it said."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=RUN_MAX,
        cwd=cwd,
        env={**os.environ, **environment},
    )
    if done.returncode != expect:
        raise SystemExit(f"`{shown}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    print(f"$ {shown}\n{done.stdout}", flush=True)
    said.append((shown, done.stdout))
    return done.stdout


def python(connection):
    """Those that know RabbitMQ alone."""
    examples = TREE / "examples"
    agent = [sys.executable, str(examples / "agent_call.py"), "--connection", connection]
    run(
        "examples/agent_call.py list_users '{\"limit\": 1}' --connection sandbox",
        [*agent, "list_users", '{"limit": 1}'],
    )
    bulk = [sys.executable, str(examples / "bulk_onboarding.py"), str(examples / "onboard.csv"), "--declare"]
    run(
        "examples/bulk_onboarding.py examples/onboard.csv --connection sandbox --declare",
        [*bulk, "--connection", connection, "--seconds", "30"],
    )
    termination = [sys.executable, "-u", str(examples / "hr_termination.py")]
    watch = [*termination, "watch", "--connection", connection, "--count", "1"]
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as watcher:
        first = watcher.stdout.readline()  # its queue is bound
        run(
            "examples/hr_termination.py send ana.almeida@acme.example --ticket HR-4711 --connection sandbox",
            [
                *termination,
                "send",
                "ana.almeida@acme.example",
                "--ticket",
                "HR-4711",
                "--connection",
                connection,
            ],
        )
        rest = watcher.communicate(timeout=RUN_MAX)[0]
    assert watcher.returncode == 0, rest
    said.append(("examples/hr_termination.py watch --connection sandbox --count 1", first + rest))


def node(folder, modules):
    """The agent in Node.js, next to the modules it needs."""
    place = folder / "node"
    place.mkdir()
    shutil.copy(TREE / "examples" / "agent_call.mjs", place)
    (place / "node_modules").symlink_to(Path(modules).resolve())
    asks = ["node", str(place / "agent_call.mjs")]
    listed = json.loads(
        run(
            "node examples/agent_call.mjs list_groups '{\"limit\": 1}' sandbox",
            [*asks, "list_groups", '{"limit": 1}', "sandbox"],
        )
    )
    assert listed["result"]["count"] == 1, listed
    run(
        'node examples/agent_call.mjs get_user \'{"user_id": "nobody@acme.example"}\' sandbox',
        [*asks, "get_user", '{"user_id": "nobody@acme.example"}', "sandbox"],
        expect=1,
    )


def celery():
    """A Celery worker takes tasks and hands them on."""
    examples = TREE / "examples"
    environment = {**os.environ, "OKTA_CONNECTION": "sandbox", "PYTHONDONTWRITEBYTECODE": "1"}
    worker = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "celery_bridge",
        "worker",
        "--pool",
        "solo",
        "-l",
        "WARNING",
    ]
    with subprocess.Popen(
        worker, cwd=examples, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            script = (
                "from celery_bridge import okta\n"
                "found = okta.delay('list_users', {'limit': 1}, fields=['id', 'status']).get(timeout=60)\n"
                "print(found['status'], found['result']['count'])\n"
                "try:\n"
                "    okta.delay('get_user', {'user_id': 'nobody@acme.example'}).get(timeout=60)\n"
                "except Exception as failure:\n"
                "    print('not_found' in str(failure))\n"
            )
            shown = "python3 -c 'from celery_bridge import okta; …'"
            text = run(shown, [sys.executable, "-c", script], cwd=examples, **environment)
            assert text.split() == ["succeeded", "1", "True"], text
        finally:
            process.terminate()


def files(binary, config, folder, org):
    """A bulk onboarding, then an offboarding, by `submit`."""
    for name, subtool, kind in [
        ("onboard.csv", "create_user", "user.created"),
        ("offboard.csv", "deactivate_user", "user.deactivated"),
    ]:
        shutil.copy(TREE / "examples" / name, folder)
        rows = len((folder / name).read_text().splitlines()) - 1
        before = effects(org).count(kind)
        shown = f"okta-worker submit {name} --connection sandbox --subtool {subtool}"
        command = [binary, "--config", str(config), *shown.split()[1:]]
        run(shown, command, cwd=folder)
        assert effects(org).count(kind) - before == rows, effects(org)
        lines = (folder / f"{name}.results.jsonl").read_text().splitlines()
        assert sorted(json.loads(line)["row"] for line in lines) == list(range(1, rows + 1)), lines


def page():
    """What was said, without what differs from run to run."""
    text = "# What the examples say\n\nWritten by `UPDATE_DOCS=1 tests/outside examples`.\n"
    for shown, output in said:
        output = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", "7d0c…", output)
        output = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "2026-11-23T12:00:00Z", output)
        output = re.sub(r"http://127.0.0.1:\d+", "https://acme.okta.com", output)
        output = re.sub(r'"[0-9a-f]{32}"', '"5036…"', output)
        output = re.sub(r'"duration_ms": \d+', '"duration_ms": 12', output)
        output = re.sub(r"in \d[\d.]* ?(ms|s)", "in 0.4 s", output)
        text += f"\n```text\n$ {shown}\n{output.rstrip()}\n```\n"
    return text


def main(binary, folder, modules):
    """All of them, one after the other."""
    binary = str(Path(binary).resolve())
    with stand(binary, folder, "sandbox", ["all"], 2) as (org, config, _):
        python("sandbox")
        node(folder, modules)
    # Another org: in this one they are on board already.
    with stand(binary, folder, "sandbox", ["all"], 2) as (org, config, _):
        files(binary, config, folder, org)
        celery()
        time.sleep(0.1)
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(page())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
