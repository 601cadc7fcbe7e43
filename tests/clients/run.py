"""Runs the Python clients and the examples against a real worker, RabbitMQ and the simulated org.

    AMQP_URL=… python3 tests/clients/run.py target/release/okta-worker

Called by `tests/run clients`, which starts a private broker. With OKTA_WORKER_TEST_BROKER_DIR, the folder of
such a broker, producers run as a user that may do what the contract grants them and no more; without it,
everybody is the user of AMQP_URL.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pika
from stand import free_port

TREE = Path(__file__).resolve().parents[2]
CLIENTS = TREE / "tests" / "clients"
EXAMPLES = TREE / "examples"
BROKER = TREE / "tests" / "support" / "broker"

START_MAX = 30  # seconds until the worker is ready
DRAIN_MAX = 30  # seconds from SIGTERM to the end; the worker promises 25
CLIENT_MAX = 120  # seconds for one client

REPLIES = "replies.caller"  # an operator declares it
ONBOARDING = "replies.onboarding"  # what bulk_onboarding.py reads


class Failed(Exception):
    """Something is not as it should be; the text says what."""


class Process:
    """A background process with its output in a file."""

    def __init__(self, name, log, arguments, **environment):
        self.name, self.log = name, log
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )

    def await_http(self, url, seconds):
        """Waits until the URL is answered with 200."""
        until = time.monotonic() + seconds
        last = "nothing"
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise Failed(f"the {self.name} ended with {self.process.returncode}")
            try:
                with urllib.request.urlopen(url, timeout=2) as answer:
                    return answer.read().decode()
            except urllib.error.HTTPError as error:
                last = f"{error.code} {error.read().decode(errors='replace')}"
            except OSError as error:
                last = str(error)
            time.sleep(0.1)
        raise Failed(f"{url} was not ready within {seconds} s: {last}")

    def stop(self, seconds):
        """SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"the {self.name} still ran {seconds} s after SIGTERM") from None

    def end(self):
        """Whatever happened before, it is gone after this."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def tail(self):
        lines = Path(self.log).read_text(errors="replace").splitlines()[-40:]
        return "\n".join(f"  {line}" for line in lines)


def ctl(folder, *arguments):
    subprocess.run([BROKER, "ctl", folder, "-q", *arguments], check=True, stdout=subprocess.DEVNULL)


def prepare_broker(worker_url, folder):
    """Does what an operator does beforehand, and returns the URLs of the producer and of the HR watcher."""
    connection = pika.BlockingConnection(pika.URLParameters(worker_url))
    channel = connection.channel()
    for queue in (REPLIES, ONBOARDING):
        channel.queue_declare(queue, durable=True)
        channel.queue_purge(queue)
    connection.close()
    if not folder:
        return worker_url, worker_url
    ctl(folder, "set_permissions", "-p", "okta", "caller", "^$", r"^okta\.invocations$", r"^replies\.")
    ctl(folder, "add_user", "hr", "hr")
    hr = r"^hr\.terminations$"
    ctl(folder, "set_permissions", "-p", "okta", "hr", hr, hr, r"^(hr\.terminations|okta\.results)$")
    return os.environ["AMQP_URL_CALLER"], worker_url.replace("worker:worker@", "hr:hr@")


def configuration(sandbox_port, telemetry_port, caller):
    return f"""
[broker]
url = {{ env = "TEST_BROKER_URL" }}

[connections.prod]
base_url = "http://127.0.0.1:{sandbox_port}"
domain = "acme.okta.com"
api_token = {{ env = "TEST_OKTA_TOKEN" }}
subtools = ["all"]

[callers.{json.dumps(caller)}]
connections = ["prod"]
subtools = ["read", "write", "destructive"]

[telemetry]
listen = "127.0.0.1:{telemetry_port}"
log_format = "text"
"""


def run(title, arguments, expect=0, **environment):
    """Runs one client, shows what it says, and returns it."""
    print(f"--- {title}", flush=True)
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=CLIENT_MAX,
        env={**os.environ, **environment},
    )
    print(done.stdout, end="", flush=True)
    if done.returncode != expect:
        raise Failed(f"{title} ended with {done.returncode}, not {expect}")
    return done.stdout


def clients(caller_url, hr_url):
    run("direct reply-to (pika)", [CLIENTS / "direct_reply.py"], AMQP_URL=caller_url)
    run("named queue (aio-pika)", [CLIENTS / "named_queue.py"], AMQP_URL=caller_url, REPLY_QUEUE=REPLIES)

    agent = EXAMPLES / "agent_call.py"
    shown = run("examples/agent_call.py", [agent, "list_users", '{"limit": 2}'], AMQP_URL=caller_url)
    if json.loads(shown)["result"]["count"] != 2:
        raise Failed("agent_call.py did not show two users")
    run("the same, refused", [agent, "get_user", '{"user_id": "nobody@example.com"}'], 1, AMQP_URL=caller_url)

    shown = run(
        "examples/bulk_onboarding.py",
        [EXAMPLES / "bulk_onboarding.py", EXAMPLES / "onboard.csv", "--seconds", "30"],
        AMQP_URL=caller_url,
    )
    if shown.split() != ["4", "rows", "sent", "applied", "4"]:
        raise Failed("bulk_onboarding.py did not say that four users were created")

    termination = EXAMPLES / "hr_termination.py"
    print("--- examples/hr_termination.py", flush=True)
    watcher = subprocess.Popen(
        [sys.executable, termination, "watch", "--count", "1"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "AMQP_URL": hr_url},
    )
    try:
        # Its first line says that the queue is bound.
        first = watcher.stdout.readline()
        sent = ["send", "ana.almeida@acme.example", "--ticket", "HR-4711"]
        run("examples/hr_termination.py send", [termination, *sent], AMQP_URL=caller_url)
        rest, _ = watcher.communicate(timeout=30)
        print(first + rest, end="")
        if watcher.returncode != 0 or "succeeded, applied" not in rest:
            raise Failed("hr_termination.py watch did not see the termination")
    finally:
        if watcher.poll() is None:
            watcher.kill()
            watcher.wait()


def scenario(binary, folder, started):
    worker_url = os.environ["AMQP_URL"]
    caller_url, hr_url = prepare_broker(worker_url, os.environ.get("OKTA_WORKER_TEST_BROKER_DIR"))
    sandbox_port, telemetry_port = free_port(), free_port()
    token = "00a-token-of-the-tests"
    sandbox = Process(
        "sandbox",
        folder / "sandbox.log",
        [binary, "sandbox", "--listen", f"127.0.0.1:{sandbox_port}", "--token", token, "--users", "300"],
    )
    started.append(sandbox)
    config = folder / "worker.toml"
    config.write_text(configuration(sandbox_port, telemetry_port, urlsplit(caller_url).username))
    worker = Process(
        "worker",
        folder / "worker.log",
        [binary, "run", "--config", config],
        TEST_BROKER_URL=worker_url,
        TEST_OKTA_TOKEN=token,
    )
    started.append(worker)
    telemetry = f"http://127.0.0.1:{telemetry_port}"
    worker.await_http(f"{telemetry}/readyz", START_MAX)
    worker.await_http(f"{telemetry}/healthz", 5)
    clients(caller_url, hr_url)
    if "okta_worker_invocations_total{" not in worker.await_http(f"{telemetry}/metrics", 5):
        raise Failed("the metrics do not count invocations")
    code = worker.stop(DRAIN_MAX)
    if code != 0:
        raise Failed(f"after SIGTERM the worker ended with {code}, not 0")
    if token in Path(worker.log).read_text(errors="replace"):
        raise Failed("the worker's log holds the token")
    sandbox.stop(DRAIN_MAX)


def main():
    binary = Path(sys.argv[1]).resolve()
    started = []
    with tempfile.TemporaryDirectory(prefix="okta-worker-clients.") as folder:
        try:
            scenario(binary, Path(folder), started)
        except (Failed, subprocess.SubprocessError) as failure:
            for process in started:
                process.end()
                print(f"the last lines of the {process.name}:\n{process.tail()}", file=sys.stderr)
            print(f"failed: {failure}", file=sys.stderr)
            return 1
        finally:
            for process in started:
                process.end()
    print("the worker drained and exited 0")
    return 0


if __name__ == "__main__":
    # As an exception, SIGTERM runs the clean-up too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
