"""A simulated org and a worker, as processes, for clients that are not Rust."""

import json
import os
import random
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager

READY_MAX = 30  # seconds until a process listens
TOKEN = "a-token-of-the-tests"


def free_port():
    """A port below the ephemeral range, where no client's connection can take it."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def ready(url):
    """Waits until something answers 200."""
    end = time.monotonic() + READY_MAX
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing answers at {url}")


def effects(org):
    """What the org has done so far."""
    with urllib.request.urlopen(f"{org}/sandbox/effects") as answer:
        return [effect["kind"] for effect in json.load(answer)]


@contextmanager
def stand(binary, folder, connection, subtools, window, *limits):
    """Starts both; gives the org's URL, the configuration's path and the log's."""
    org_port, worker_port = free_port(), free_port()
    org = f"http://127.0.0.1:{org_port}"
    config, log_path = folder / "worker.toml", folder / "worker.log"
    config.write_text(
        f"""
[broker]
url = {{ env = "AMQP_URL" }}
[connections.{connection}]
base_url = "{org}"
domain = "sandbox.okta.example"
rate_limit_window = "{window}s"
api_token = {{ env = "STAND_OKTA_TOKEN" }}
subtools = {json.dumps(subtools)}
[telemetry]
listen = "127.0.0.1:{worker_port}"
"""
    )
    sandbox = [binary, "sandbox", "--listen", f"127.0.0.1:{org_port}", "--token", TOKEN, "--users", "20"]
    sandbox += ["--window", str(window)]
    for limit in limits:
        sandbox += ["--limit", limit]
    worker = [binary, "run", "--config", str(config)]
    environment = {**os.environ, "STAND_OKTA_TOKEN": TOKEN}
    with (
        log_path.open("w") as log,
        subprocess.Popen(sandbox, stdout=log, stderr=log) as first,
        subprocess.Popen(worker, stdout=log, stderr=log, env=environment) as second,
    ):
        try:
            ready(f"http://127.0.0.1:{worker_port}/readyz")
            yield org, config, log_path
        finally:
            first.terminate()
            second.terminate()
