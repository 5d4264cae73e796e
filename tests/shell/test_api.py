"""The local API over its Unix sockets, as a client sees it."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx
import pytest
import trio

from meshd.api import ResetWanted, open_sockets, serve_api
from meshd.errors import MeshdError, UsageError
from meshd.explain import NoSuchNode


class Node:
    """What a daemon would let its users read."""

    def __init__(self) -> None:
        self.history = [{"number": 1, "wall_ms": 5, "kind": "started", "text": "hello"}]
        self.grew = trio.Event()
        self.unready: str | None = "2 of 3 voters seen"

    def status_json(self) -> bytes:
        return b'{"api_version":"meshd/v1","kind":"Status"}'

    def explanation_json(self, topic: str, wanted: str | None) -> bytes:
        if wanted == "nobody":
            raise NoSuchNode("'nobody' names no node; known are: n1")
        return json.dumps({"kind": "Explanation", "topic": topic, "node": wanted}).encode()

    def ledger_rows(self, *, author: str | None, prefix: str | None) -> list[dict[str, object]]:
        keys = ["genesis/1/claim", "node/a/facts", "node/a/facts-of-old"]
        return [{"key": key, "author": author} for key in keys if key.startswith(prefix or "")]

    def history_rows(self, *, after: int) -> list[dict[str, object]]:
        return [dict(row) for row in self.history if int(str(row["number"])) > after]

    async def history_grew(self, *, after: int) -> None:
        await self.grew.wait()

    def kubeconfig_sources(self, recipients: Sequence[str]) -> dict[str, object]:
        return {"file": None, "sealed": list(recipients)}

    def metrics(self) -> bytes:
        return b"meshd_generation 1.0\n"

    def unready_reason(self) -> str | None:
        return self.unready

    def stalled_reason(self) -> str | None:
        return None


@pytest.fixture
def node() -> Node:
    return Node()


class Operable:
    """Takes down what it is asked for; refuses a cluster id that is not `c1`."""

    def __init__(self) -> None:
        self.asked: list[ResetWanted] = []

    async def reset(self, wanted: ResetWanted) -> dict[str, object]:
        self.asked.append(wanted)
        if wanted.cluster_id not in (None, "c1"):
            raise UsageError("MESH-4024", "another id", fix="type c1")
        return {"begun": wanted.cluster_id is not None}

    def reset_progress(self) -> dict[str, object]:
        return {"stage": "asked"}


@pytest.fixture
def operable() -> Operable:
    return Operable()


@pytest.fixture
async def client(
    tmp_path: Path, node: Node, operable: Operable
) -> AsyncIterator[httpx.AsyncClient]:
    sockets = open_sockets(tmp_path / "run")
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "run" / "ro.sock"))
    async with (
        trio.open_nursery() as nursery,
        httpx.AsyncClient(transport=transport, base_url="http://meshd") as http,
    ):
        nursery.start_soon(serve_api, node, operable, sockets)
        yield http
        nursery.cancel_scope.cancel()
    assert not list((tmp_path / "run").iterdir()), "a stopped daemon leaves no socket behind"


async def test_status_is_passed_on_as_it_is(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/status")
    assert (answer.status_code, answer.json()["kind"]) == (200, "Status")


async def test_the_ledger_can_be_filtered_and_asked_for_one_key(client: httpx.AsyncClient) -> None:
    listed = await client.get("/v1/ledger", params={"author": "n1", "prefix": "node/"})
    assert [row["key"] for row in listed.json()["entries"]] == [
        "node/a/facts",
        "node/a/facts-of-old",
    ]
    assert listed.json()["entries"][0]["author"] == "n1"
    got = await client.get("/v1/ledger/get", params={"key": "node/a/facts"})
    assert [row["key"] for row in got.json()["entries"]] == ["node/a/facts"]


async def test_events_can_be_listed(client: httpx.AsyncClient, node: Node) -> None:
    assert (await client.get("/v1/events")).json()["events"] == node.history
    assert (await client.get("/v1/events", params={"after": 1})).json()["events"] == []
    assert (await client.get("/v1/events", params={"after": "x"})).status_code == 400


async def test_events_can_be_followed(
    client: httpx.AsyncClient, node: Node, tmp_path: Path
) -> None:
    async with await trio.open_unix_socket(tmp_path / "run" / "meshd.sock") as stream:
        await stream.send_all(
            b"GET /v1/events HTTP/1.1\r\nHost: meshd\r\nAccept: text/event-stream\r\n\r\n"
        )
        received = b""
        while b"hello" not in received:
            received += await stream.receive_some()
        assert b"world" not in received
        node.history.append({"number": 2, "wall_ms": 6, "kind": "formed", "text": "world"})
        node.grew.set()
        while b"world" not in received:
            received += await stream.receive_some()
    assert received.count(b"hello") == 1
    # The server goes on for others after a follower left.
    assert (await client.get("/livez")).status_code == 200


async def test_metrics_are_text_that_every_scraper_reads(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert (answer.status_code, answer.text) == (200, "meshd_generation 1.0\n")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_probes_say_why_not(client: httpx.AsyncClient, node: Node) -> None:
    assert (await client.get("/livez")).status_code == 200
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "2 of 3 voters seen\n")
    node.unready = None
    assert (await client.get("/readyz")).status_code == 200


def test_the_sockets_are_private_and_replace_those_of_a_killed_daemon(tmp_path: Path) -> None:
    for sock in open_sockets(tmp_path):
        sock.close()  # The file stays, as after SIGKILL.
    sockets = open_sockets(tmp_path)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("meshd.sock", "ro.sock")]
    assert modes == [0o600, 0o660]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "meshd.sock"))
    for sock in sockets:
        sock.close()


def test_a_run_directory_that_cannot_be_made_is_an_error_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MeshdError, match="cannot be made") as caught:
        open_sockets(tmp_path / "file")
    assert (caught.value.code, "--run-dir" in caught.value.fix) == ("MESH-7001", True)


async def test_explanations_are_asked_for_by_topic_and_node(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/explain/join", params={"node": "n2"})
    assert answer.json() == {"kind": "Explanation", "topic": "join", "node": "n2"}
    assert (await client.get("/v1/explain/role")).json()["node"] is None
    unknown = await client.get("/v1/explain/vip", params={"node": "nobody"})
    assert unknown.status_code == 404
    assert unknown.json() == {"error": "'nobody' names no node; known are: n1"}
    assert (await client.get("/v1/explain/weather")).status_code == 404


async def test_a_reset_goes_through_roots_socket_alone(
    client: httpx.AsyncClient, tmp_path: Path, operable: Operable
) -> None:
    wanted = {"confirm_dead": ["n1"], "by": "anna"}
    for method in ("GET", "POST"):
        answer = await client.request(method, "/v1/bootstrap/reset", json=wanted)
        assert answer.status_code == 404
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "run" / "meshd.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://meshd") as root:
        assert (await root.get("/v1/bootstrap/reset")).json()["stage"] == "asked"
        shown = await root.post("/v1/bootstrap/reset", json=wanted)
        assert (shown.status_code, shown.json()["begun"]) == (200, False)
        wrong = await root.post("/v1/bootstrap/reset", json=wanted | {"cluster_id": "d2"})
        assert wrong.status_code == 409
        assert wrong.json() == {
            "error": "another id",
            "refusal": {"code": "MESH-4024", "cause": None, "fix": "type c1", "exit_code": "2"},
        }
        broken = await root.post("/v1/bootstrap/reset", json={"confirm_dead": 3})
        assert broken.status_code == 400
        assert (await root.get("/v1/status")).status_code == 200
    asked = [(one.confirm_dead, one.cluster_id, one.by) for one in operable.asked]
    assert asked == [(("n1",), None, "anna"), (("n1",), "d2", "anna")]
