"""Weights & Biases itself against servers on this machine that are slow, absent or dying."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# Logs two rows, then reads a command, logs the other rows and ends.
RUN = """
    import os, sys
    from pathlib import Path
    from rich.console import Console
    from BC_training.training import tracking, wandb_mirror
    from BC_training.common.config import load_config
    wandb_mirror._INIT_SECONDS, tracking._FINISH_SECONDS, tracking._INTERRUPTED_SECONDS = 5, 20.0, 1.0
    config, first = load_config("configs/pure_cnn_small.yaml"), int(sys.argv[2])
    options = {} if first == 0 else {"position": int(sys.argv[3]), "wandb_id": sys.argv[4]}
    try:
        with tracking.Tracker(Path(sys.argv[1]), config, Console(width=400), **options) as tracker:
            for step in range(first, first + 2):  # W&B sends a step's row when the next one begins
                tracker.log("train", step, {"loss": 0.5})
            command = input()
            for step in range(first + 2, first + 10):
                tracker.log("train", step, {"loss": 0.5})
            print(tracker.position(), tracker.wandb_id)
            if command == "interrupt":
                raise KeyboardInterrupt
            if command == "little time":
                tracking._FINISH_SECONDS = 3.0
    except KeyboardInterrupt:
        pass
"""


class Server(ThreadingHTTPServer):
    """Answers like W&B's server until ``hangs`` is set."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.hangs = False
        self.rows: list[dict] = []  # the received history of the run

    def handle_error(self, *request: object) -> None:
        pass  # a client that is gone


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        while self.server.hangs:
            time.sleep(0.1)
        answer: dict = {}
        if self.path == "/graphql":
            request = json.loads(body)
            answer = {"data": {}}
            if "upsertBucket" in request["query"]:
                project = {"id": "p", "name": "BC_training", "entity": {"id": "e", "name": "me"}}
                bucket = {"id": "b", "name": request["variables"]["name"], "config": "{}", "project": project}
                answer = {"data": {"upsertBucket": {"inserted": True, "bucket": bucket}}}
            elif "createRunFiles" in request["query"]:
                answer = {"data": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}}}
        elif self.path.endswith("/file_stream"):
            history = json.loads(body).get("files", {}).get("wandb-history.jsonl", {})
            self.server.rows += [json.loads(line) for line in history.get("content", [])]
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.hangs = False
    server.shutdown()
    server.server_close()
    thread.join()


def start(server: Server, folder: Path, first: int = 0, *resume: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    environment |= {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}"}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(RUN), str(folder), str(first), *resume],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process: subprocess.Popen[str], command: str = "finish") -> list[str]:
    """The lines it printed."""
    text, _ = process.communicate(command + "\n", timeout=120)
    assert process.returncode == 0, text
    return text.splitlines()


def wait_for_rows(server: Server) -> None:
    deadline = time.monotonic() + 60
    while not server.rows:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_rows_arrive_in_a_run_that_is_continued(server, tmp_path):
    (line,) = end(start(server, tmp_path))
    position, wandb_id = line.split()
    (line,) = end(start(server, tmp_path, 10, position, wandb_id))
    assert line.split()[1] == wandb_id
    assert [row["_step"] for row in server.rows] == list(range(20))
    assert server.rows[0]["train/loss"] == 0.5
    assert steps(tmp_path) == list(range(20))


def test_wandb_is_offline_where_its_server_hangs_from_the_start(server, tmp_path):
    server.hangs = True
    _, message = end(start(server, tmp_path))
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert message.startswith("W&B is offline (Timed out")
    assert message.endswith(f"upload the run with 'wandb sync {folder}'")
    assert next(folder.glob("*.wandb")).stat().st_size > 0
    assert steps(tmp_path) == list(range(10))


def test_a_run_whose_server_begins_to_hang_can_be_uploaded_later(server, tmp_path):
    process = start(server, tmp_path)
    wait_for_rows(server)
    server.hangs = True
    _, message = end(process, "little time")
    (folder,) = (tmp_path / "wandb").glob("run-*")
    assert message.startswith(f"W&B has not finished in 3 s; upload it with 'wandb sync {folder}'")
    assert next(folder.glob("*.wandb")).stat().st_size > 0
    assert steps(tmp_path) == list(range(10))


def test_an_interrupted_run_waits_less_for_wandb(server, tmp_path):
    server.hangs = True
    _, message = end(start(server, tmp_path), "interrupt")
    assert message.startswith("W&B has not finished in 1 s")
    assert steps(tmp_path) == list(range(10))
