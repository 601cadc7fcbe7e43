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
from urllib.parse import urlsplit

from stand import effects, free_port, stand

TREE = Path(__file__).resolve().parents[2]
EXAMPLES = TREE / "examples"
PAGE = TREE / "docs" / "examples.md"
RUN_MAX = 90  # seconds for one example
PASSWORD = "a-password-of-the-tests"  # of no user

said = []


def execute(command, cwd=None, **environment):
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=RUN_MAX,
        cwd=cwd,
        env={**os.environ, **environment},
    )


def run(shown, command, expect=0, cwd=None, **environment):
    """Runs one example as a reader would, and keeps what it said."""
    done = execute(command, cwd, **environment)
    if done.returncode != expect:
        raise SystemExit(f"`{shown}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    print(f"$ {shown}\n{done.stdout}", flush=True)
    said.append((shown, done.stdout))
    return done.stdout


def python(connection):
    """Those that know RabbitMQ alone."""
    agent = [sys.executable, str(EXAMPLES / "agent_call.py"), "--connection", connection]
    run(
        "examples/agent_call.py list_users '{\"limit\": 1}' --connection sandbox",
        [*agent, "list_users", '{"limit": 1}'],
    )
    bulk = [sys.executable, str(EXAMPLES / "bulk_onboarding.py"), str(EXAMPLES / "onboard.csv"), "--declare"]
    run(
        "examples/bulk_onboarding.py examples/onboard.csv --connection sandbox --declare",
        [*bulk, "--connection", connection, "--seconds", "30"],
    )
    termination = [sys.executable, "-u", str(EXAMPLES / "hr_termination.py")]
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


def node_folder(folder, modules):
    """A folder with the agent in Node.js and the modules it needs."""
    place = folder / "node"
    place.mkdir()
    shutil.copy(EXAMPLES / "agent_call.mjs", place)
    (place / "node_modules").symlink_to(Path(modules).resolve())
    return place


def node(place):
    """The agent in Node.js."""
    asks = ["node", str(place / "agent_call.mjs")]
    listed = json.loads(
        run(
            "node examples/agent_call.mjs list_groups '{\"limit\": 1}' --connection sandbox",
            [*asks, "list_groups", '{"limit": 1}', "--connection", "sandbox"],
        )
    )
    assert listed["result"]["count"] == 1, listed
    run(
        'node examples/agent_call.mjs get_user \'{"user_id": "nobody@acme.example"}\' --connection sandbox',
        [*asks, "get_user", '{"user_id": "nobody@acme.example"}', "--connection", "sandbox"],
        expect=1,
    )


def contract(place):
    """The examples inside docs/messages.md, as they are there except for the connection."""
    text = (TREE / "docs" / "messages.md").read_text()
    for language, program, name in [
        ("python", sys.executable, "contract.py"),
        ("js", "node", "contract.mjs"),
    ]:
        (code,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
        assert code.count('"prod"') == 1, code
        (place / name).write_text(code.replace('"prod"', '"sandbox"'))
        done = execute([program, str(place / name)])
        if done.returncode != 0 or "not_found" not in done.stdout:
            raise SystemExit(f"the {language} of docs/messages.md ended with {done.returncode}:\n{done}")
        print(f"the {language} of docs/messages.md got its result", flush=True)


def one_line(command, code, **environment):
    """Runs an example that cannot work, and returns the line in which it says so."""
    done = execute(command, **environment)
    bad = done.stdout or len(done.stderr.splitlines()) != 1 or "Traceback" in done.stderr
    if done.returncode != code or bad or PASSWORD in done.stderr:
        raise SystemExit(f"{command} ended with {done.returncode}, not {code}:\n{done.stdout}{done.stderr}")
    name = next(Path(part).name for part in command if part.endswith((".py", ".mjs")))
    print(f"{name}: {done.stderr}", end="", flush=True)
    return done.stderr


def without_broker(place):
    """Every example, where nothing listens and where RabbitMQ refuses the password."""
    python = [sys.executable]
    call = ["get_user", "{}"]
    examples = [
        [*python, str(EXAMPLES / "agent_call.py"), *call, "--connection", "sandbox"],
        ["node", str(place / "agent_call.mjs"), *call, "--connection", "sandbox"],
        [*python, str(EXAMPLES / "bulk_onboarding.py"), str(EXAMPLES / "onboard.csv")],
        [*python, str(EXAMPLES / "hr_termination.py"), "send", "jane@example.com", "--ticket", "HR-4711"],
        [*python, str(EXAMPLES / "hr_termination.py"), "watch"],
        [*python, str(EXAMPLES / "celery_bridge.py"), *call],
    ]
    url = urlsplit(os.environ["AMQP_URL"])
    for broker in [f"127.0.0.1:{free_port()}", f"{url.hostname}:{url.port or 5672}"]:
        for command in examples:
            line = one_line(command, 3, AMQP_URL=f"amqp://{url.username}:{PASSWORD}@{broker}{url.path}")
            assert broker in line and "AMQP_URL" in line, line


def without_packages(folder):
    """Every example, where its package is missing."""
    for package, name in [
        ("pika", "agent_call.py"),
        ("aio-pika", "bulk_onboarding.py"),
        ("pika", "hr_termination.py"),
        ("celery", "celery_bridge.py"),
    ]:
        # Isolated, and without the folders of installed packages.
        line = one_line([sys.executable, "-I", "-S", "-B", str(EXAMPLES / name)], 2)
        assert f"`{package}`" in line, line
    bare = folder / "bare"
    bare.mkdir()
    shutil.copy(EXAMPLES / "agent_call.mjs", bare)
    line = one_line(["node", str(bare / "agent_call.mjs")], 2)
    assert "`amqplib`" in line, line


def wrong_arguments(place):
    """The agents take the same arguments, and refuse the same."""
    for program, agent in [(sys.executable, EXAMPLES / "agent_call.py"), ("node", place / "agent_call.mjs")]:
        for arguments in [
            [],
            ["get_user"],
            ["get_user", "{}", "sandbox"],
            ["get_user", "no JSON"],
            ["get_user", "[]"],
            ["get_user", "{}", "--connection"],
            ["get_user", "{}", "--seconds", "0"],
            ["get_user", "{}", "--seconds", "soon"],
            ["get_user", "{}", "--no-such-option"],
        ]:
            done = execute([program, str(agent), *arguments])
            usage = "SUBTOOL ARGUMENTS [--connection NAME] [--seconds N]"
            if done.returncode != 2 or done.stdout or usage not in done.stderr:
                raise SystemExit(f"{agent.name} {arguments} ended with {done.returncode}:\n{done.stderr}")


def celery():
    """A Celery worker takes tasks and hands them on."""
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
        worker, cwd=EXAMPLES, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
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
            text = run(shown, [sys.executable, "-c", script], cwd=EXAMPLES, **environment)
            assert text.split() == ["succeeded", "1", "True"], text
            bridge = [sys.executable, "celery_bridge.py"]
            done = execute([*bridge, "list_users", '{"limit": 1}'], EXAMPLES, **environment)
            assert done.returncode == 0 and json.loads(done.stdout)["result"]["count"] == 1, done
            nobody = '{"user_id": "nobody@acme.example"}'
            done = execute([*bridge, "get_user", nobody], EXAMPLES, **environment)
            assert done.returncode == 1 and "not_found" in done.stderr, done
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
    text = "# Output of the examples\n\nWritten by `UPDATE_DOCS=1 tests/outside examples`.\n"
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
    place = node_folder(folder, modules)
    without_packages(folder)
    wrong_arguments(place)
    without_broker(place)
    with stand(binary, folder, "sandbox", ["all"], 2) as (org, config, _):
        python("sandbox")
        node(place)
        contract(place)
    # Another org: in this one they are on board already.
    with stand(binary, folder, "sandbox", ["all"], 2) as (org, config, _):
        files(binary, config, folder, org)
        celery()
        time.sleep(0.1)
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(page())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
