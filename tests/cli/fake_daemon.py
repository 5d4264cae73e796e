"""A tiny daemon: real HTTP on a real Unix socket, answers that a test sets."""

import json
import os
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

Json = dict[str, Any]

FORMED: Json = {
    "api_version": "meshd/v1",
    "kind": "Status",
    "network": {
        "id": "oak-7f3a9c12",
        "bound": "bounded",
        "nodes_max": 5,
        "quorum": 3,
        "control_plane": 3,
    },
    "node": {
        "id": "12D3KooWAAAA1111",
        "name": "n1",
        "role": "control-plane",
        "initialiser": True,
        "phase": "steady",
        "waiting_for": None,
        "uptime_s": 311.2,
    },
    "genesis": {
        "phase": "formed",
        "generation": 1,
        "cluster_id": "00112233445566778899aabbccddeeff",
        "initialiser": "n1",
        "votes": 3,
        "epoch": 0,
    },
    "cluster": {
        "endpoint": "https://10.0.0.50:6443",
        "servers": ["10.0.0.11"],
        "control_plane_ready": 3,
        "nodes_ready": 4,
        "k3s_version": "k3s version v1.34.1+standin (stand-in, not k3s)",
    },
    "vip": {"address": "10.0.0.50", "holder": "n1"},
    "nodes": [
        {
            "id": "12D3KooWBBBB2222",
            "name": "n2",
            "role": "control-plane",
            "state": "alive",
            "path": "direct",
            "relay": None,
            "rtt_ms": 0.91,
            "node_ip": "10.0.0.12",
            "k3s": "ready",
            "waiting_for": None,
        },
        {
            "id": "12D3KooWAAAA1111",
            "name": "n1",
            "role": "control-plane",
            "state": "alive",
            "path": "self",
            "relay": None,
            "rtt_ms": None,
            "node_ip": "10.0.0.11",
            "k3s": "ready",
            "waiting_for": None,
        },
        {
            "id": "12D3KooWCCCC3333",
            "name": "cell-1",
            "role": "worker",
            "state": "suspect",
            "path": "relay",
            "relay": "n1",
            "rtt_ms": 61.0,
            "node_ip": "10.9.0.4",
            "k3s": "starting",
            "waiting_for": "a server's answer",
        },
    ],
    "ledger": {
        "entries": 41,
        "root": "9c41aabbccddeeff0011",
        "rejected": 0,
        "synchronised_with": ["n2"],
    },
    "health": [],
    "at_ms": 1_790_000_000_000,
}

WAITING: Json = {
    **FORMED,
    "node": {
        **FORMED["node"],
        "role": None,
        "initialiser": False,
        "phase": "discovering",
        "waiting_for": "2 of 3 voters seen (n1, n2): one more machine must be reachable",
    },
    "genesis": {
        "phase": "discovering",
        "generation": 1,
        "cluster_id": None,
        "initialiser": None,
        "votes": 0,
        "epoch": 0,
    },
    "cluster": {
        "endpoint": None,
        "servers": [],
        "control_plane_ready": 0,
        "nodes_ready": None,
        "k3s_version": None,
    },
    "vip": {"address": None, "holder": None},
    "ledger": {**FORMED["ledger"], "synchronised_with": []},
    "nodes": [{**FORMED["nodes"][1], "role": None, "k3s": "absent"}],
    "health": [
        {
            "code": "MESH-3102",
            "severity": "warning",
            "message": "no seed answers",
            "fix": "check p2p.meshd.seeds",
        }
    ],
}

ENTRIES: list[Json] = [
    {
        "author": "12D3KooWBBBB2222",
        "name": "n2",
        "key": "node/12D3KooWRBhwfeP2Y4TCx1SM6s9rUoHhR5STiGwxBhgFRcw3UERE/facts",
        "seq": 7,
        "stamp_ms": 1_790_000_000_000,
        "age_s": 75.2,
        "size": 412,
        "signature": "valid",
        "value": {"name": "n2", "cpus": 4},
    },
    {
        "author": "12D3KooWAAAA1111",
        "name": "n1",
        "key": "genesis/1/claim",
        "seq": 1,
        "stamp_ms": 1_790_000_000_000,
        "age_s": None,
        "size": 2100,
        "signature": "valid",
        "value": "a1b2",
    },
]

EVENTS: list[Json] = [
    {"number": 1, "wall_ms": 1_000, "kind": "started", "text": "meshd 0.1.0"},
    {"number": 2, "wall_ms": 32_503_680_000_000, "kind": "role_decided", "text": "worker"},
]


EXPLANATION: Json = {
    "api_version": "meshd/v1",
    "kind": "Explanation",
    "topic": "role",
    "node": {"id": "12D3KooWAAAA1111", "name": "n1"},
    "answer": "control-plane",
    "causes": [
        {
            "subject": "seats",
            "text": "3 in the control plane; 5 machines may vote, 3 must agree",
            "fulfilled": None,
            "settings": [
                {"key": "p2p.auto.ha.master_nodes", "value": "2", "place": "/oem/90_custom.yaml:14"}
            ],
            "entries": [],
            "record": None,
        },
        {
            "subject": "plan",
            "text": "generation 1: seat 2 of 3; control plane n2, n1, n3",
            "fulfilled": True,
            "settings": [],
            "entries": [
                {
                    "key": "genesis/1/claim",
                    "author": "n2",
                    "author_id": "12D3KooWBBBB2222",
                    "seq": 1,
                    "stamp_ms": 1_790_000_000_000,
                }
            ],
            "record": {
                "key": "genesis/1/claim",
                "round": 1,
                "proposer": "n2",
                "signers": ["n1", "n2", "n3"],
            },
        },
        {
            "subject": "k3s",
            "text": "starting \x1b[31m",
            "fulfilled": False,
            "settings": [],
            "entries": [],
            "record": None,
        },
    ],
    "waiting_for": "k3s on this node to become ready",
    "would_change_if": ["all machines start afresh with a new token"],
}


RESET: Json = {
    "kind": "Reset",
    "cluster_id": "c1" * 16,
    "epoch": 1,
    "node": "n3",
    "dead": ["n1", "n2"],
    "rejoin": [],
    "addresses": [["n3", "10.0.0.13", "10.0.0.13"]],
    "vip_problem": None,
    "alive": ["cell-1"],
    "database_bytes": 3_250_586,
    "database_written_s_ago": 125,
    "begun": False,
}


class FakeDaemon:
    """Answers from `status`, which may be a value or what computes the next one."""

    def __init__(self) -> None:
        self.status: Json | Callable[[], Json] = FORMED
        self.requests: list[str] = []
        self.broken: int | None = None
        self.sources: Json = {"file": None, "sealed": []}
        self.posted: list[Json] = []
        self.refuses: Json | None = None  # What a POST is answered with, in place of its object.
        self.progress: list[Json] = []  # Of a reset, one for each look; the last one stays.

    def answer(self, path: str) -> object:
        """Return the body for a path with its query."""
        self.requests.append(path)
        if path in ("/v1/status", "/v1/bootstrap/reset"):
            found = self.status if path.endswith("status") else self._look_at_reset
            return found() if callable(found) else found
        if path.startswith("/v1/kubeconfig"):
            return {"api_version": "meshd/v1", "kind": "KubeconfigSources"} | self.sources
        if path.startswith("/v1/events"):
            return {"api_version": "meshd/v1", "kind": "Events", "events": EVENTS}
        if path.startswith("/v1/explain/"):
            if path.endswith("node=x9"):
                return {"error": "'x9' names no node; known are: n1, n2"}
            return EXPLANATION
        entries = ENTRIES
        if path.startswith("/v1/ledger/get"):
            entries = [
                entry for entry in ENTRIES if path.endswith(entry["key"].replace("/", "%2F"))
            ]
        return {"api_version": "meshd/v1", "kind": "LedgerEntries", "entries": entries}

    def _look_at_reset(self) -> Json:
        return self.progress.pop(0) if len(self.progress) > 1 else self.progress[0]


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@contextmanager
def running(run_dir: Path, name: str = "meshd.sock") -> Iterator[FakeDaemon]:
    """Run a fake daemon in a thread; its socket is `run_dir`/`name`."""
    daemon = FakeDaemon()

    def answer(request: BaseHTTPRequestHandler) -> None:
        body = json.dumps(daemon.answer(request.path)).encode()
        if daemon.broken is not None:
            body = b'{"error": "out of order"}'
        elif "event-stream" in request.headers["Accept"]:
            lines = (f"id: {event['number']}\ndata: {json.dumps(event)}\n\n" for event in EVENTS)
            body = "".join(lines).encode()
        request.send_response(daemon.broken or (404 if body.startswith(b'{"error"') else 200))
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def do(request: BaseHTTPRequestHandler) -> None:
        text = request.rfile.read(int(request.headers["Content-Length"]))
        daemon.posted.append(json.loads(text))
        body = json.dumps(daemon.refuses or RESET).encode()
        request.send_response(409 if daemon.refuses else 200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    # The base class finds what to call by these names, and logs to stderr otherwise.
    names = {"do_GET": answer, "do_POST": do, "log_message": lambda *_: None}
    handler = type("Answer", (BaseHTTPRequestHandler,), names)
    with _Server(os.fspath(run_dir / name), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield daemon
        finally:
            server.shutdown()
            thread.join()
