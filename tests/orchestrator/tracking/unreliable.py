"""A real MLflow server, and a proxy before it that loses answers: the server did what was asked, and nobody is told."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

# All that the copy asks a server to write: method, and the end of the path
WRITES = {
    "experiment": r"POST .*/experiments/create",
    "run": r"POST .*/runs/create",
    "params or metrics": r"POST .*/runs/log-batch",
    "inputs": r"POST .*/runs/log-inputs",
    "outputs": r"POST .*/runs/outputs",
    "status": r"POST .*/runs/update",
    "tag": r"POST .*/runs/set-tag",
    "model": r"POST .*/logged-models",
    "model that is ready": r"PATCH .*/logged-models/.*",
    "artifact": r"PUT .*/artifacts/.*",
}

Loss = Literal["closed", "504"]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[int]:
    """A server whose database and artifacts are in a folder; gives its port."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        f"{folder}/artifacts",
    ]
    quiet = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=quiet, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    break
            time.sleep(0.1)
        yield port
    finally:
        # its worker too
        os.killpg(server.pid, 15)
        server.wait(30)


class Proxy(ThreadingHTTPServer):
    """Hands requests on to a server, and loses the answers to some of them."""

    daemon_threads = True

    def __init__(self, server_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server_port_behind = server_port
        self.losses: dict[str, int] = {}  # how many answers are still to be lost, by the pattern of the request
        self.how: Loss = "closed"
        self.lost: Counter[str] = Counter()
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def uri(self) -> str:
        """What a client is given in place of the server's."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def is_to_lose(self, request: str) -> bool:
        """Whether the answer to this request goes lost, which is counted."""
        with self.lock:
            for pattern, number in self.losses.items():
                if number and re.fullmatch(pattern, request):
                    self.losses[pattern] -= 1
                    self.lost[pattern] += 1
                    return True
        return False


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def _hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        behind = http.client.HTTPConnection("127.0.0.1", self.server.server_port_behind, timeout=60)
        headers = dict(self.headers)
        headers["Host"] = f"127.0.0.1:{self.server.server_port_behind}"
        behind.request(self.command, self.path, body, headers)
        answer = behind.getresponse()
        content = answer.read()
        behind.close()
        status = answer.status
        if self.server.is_to_lose(f"{self.command} {self.path.partition('?')[0]}"):
            if self.server.how == "closed":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            status, content = 504, b"Gateway Time-out"
        self.send_response(status)
        self.send_header("Content-Type", answer.getheader("Content-Type", "text/plain"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _hand_on

    def log_message(self, *arguments: Any) -> None:
        """Nothing is said of what is handed on."""
