"""The local API: HTTP/1.1 and JSON over two Unix sockets, never TCP.

`meshd.sock` is root's; `ro.sock` is for the group `meshd`. What only reads is served on
both; what changes something, on the first alone.
"""

from __future__ import annotations

import grp
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import trio
from hypercorn.config import Config, Sockets
from hypercorn.trio.run import worker_serve
from hypercorn.utils import wrap_app
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from meshd.errors import MeshdError
from meshd.explain import TOPICS, NoSuchNode, Topic

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus, "Exposition formats": the version that every scraper reads."""


class Readable(Protocol):
    """What the daemon lets its users read."""

    def status_json(self) -> bytes: ...
    def explanation_json(self, topic: Topic, wanted: str | None) -> bytes: ...
    def ledger_rows(self, *, author: str | None, prefix: str | None) -> list[dict[str, object]]: ...
    def history_rows(self, *, after: int) -> list[dict[str, object]]: ...
    async def history_grew(self, *, after: int) -> None: ...
    def kubeconfig_sources(self, recipients: Sequence[str]) -> dict[str, object]: ...
    def metrics(self) -> bytes: ...
    def unready_reason(self) -> str | None: ...
    def stalled_reason(self) -> str | None: ...


class Operable(Protocol):
    """What the daemon does for root."""

    async def reset(self, wanted: ResetWanted) -> dict[str, object]: ...
    def reset_progress(self) -> dict[str, object]: ...


class ResetWanted(msgspec.Struct, frozen=True, kw_only=True):
    """What `POST /v1/bootstrap/reset` asks for.

    Args:
        cluster_id: as the operator typed it; None only shows what would be done.
        by: who asks, as their machine knows them.
        readdress: servers that are heard go on at the addresses that they have now.
        snapshot: path of a snapshot of etcd on this machine, to take the database from.
    """

    confirm_dead: tuple[str, ...]
    cluster_id: str | None = None
    by: str = "root"
    readdress: bool = False
    snapshot: str | None = None


def build_app(readable: Readable, operable: Operable | None = None) -> Starlette:
    """Return the ASGI application; without `operable` it changes nothing."""

    async def status(_: Request) -> Response:
        return Response(readable.status_json(), media_type="application/json")

    async def ledger(request: Request) -> Response:
        rows = readable.ledger_rows(
            author=request.query_params.get("author"), prefix=request.query_params.get("prefix")
        )
        return _object("LedgerEntries", entries=rows)

    async def ledger_get(request: Request) -> Response:
        key = request.query_params.get("key", "")
        rows = [row for row in readable.ledger_rows(author=None, prefix=key) if row["key"] == key]
        return _object("LedgerEntries", entries=rows)

    async def events(request: Request) -> Response:
        after = request.query_params.get("after", "0")
        if not after.isdecimal():
            return JSONResponse({"error": f"after={after!r} is not a number"}, status_code=400)
        if "text/event-stream" in request.headers.get("accept", ""):
            stream = _follow(readable, int(after))
            return StreamingResponse(stream, media_type="text/event-stream")
        return _object("Events", events=readable.history_rows(after=int(after)))

    async def kubeconfig(request: Request) -> Response:
        recipients = request.query_params.get("recipients", "").split(",")
        return _object("KubeconfigSources", **readable.kubeconfig_sources(recipients))

    async def metrics(_: Request) -> Response:
        return Response(readable.metrics(), headers={"content-type": METRICS_TYPE})

    return Starlette(
        routes=[
            Route("/v1/status", status),
            *(_explanation(readable, topic) for topic in TOPICS),
            Route("/v1/ledger", ledger),
            Route("/v1/ledger/get", ledger_get),
            Route("/v1/events", events),
            Route("/v1/kubeconfig", kubeconfig),
            *(_operations(operable) if operable is not None else ()),
            Route("/metrics", metrics),
            Route("/livez", _probe(readable.stalled_reason)),
            Route("/readyz", _probe(readable.unready_reason)),
        ]
    )


def open_sockets(run_dir: Path) -> list[socket.socket]:
    """Return listening sockets at `run_dir`/meshd.sock and ro.sock.

    Raises:
        MeshdError: they cannot be made.
    """
    paths = (run_dir / "meshd.sock", run_dir / "ro.sock")
    try:
        run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        sockets = [_listen(paths[0], 0o600), _listen(paths[1], 0o660)]
        _give_to_group(paths[1], "meshd")
    except OSError as error:
        raise MeshdError(
            "MESH-7001",
            f"the local API's sockets cannot be made in {run_dir}: {error.strerror or error}",
            fix="run the daemon as root, or name a writable directory with --run-dir",
        ) from error
    return sockets


async def serve_api(
    readable: Readable, operable: Operable, sockets: Sequence[socket.socket]
) -> None:
    """Serve on `sockets`, root's first, until cancelled; then close them and remove their files."""
    apps = [build_app(readable, operable), *(build_app(readable) for _ in sockets[1:])]
    async with trio.open_nursery() as nursery:
        for app, sock in zip(apps, sockets, strict=True):
            nursery.start_soon(_serve, app, sock)


async def _serve(served: Starlette, sock: socket.socket) -> None:
    config = Config()
    # With the other libraries' lines, not to stderr by a way of its own.
    config.errorlog = logging.getLogger("hypercorn")
    config.loglevel = "ERROR"
    config.graceful_timeout = 0.2
    app = wrap_app(served, config.wsgi_max_body_size, "asgi")  # type: ignore[arg-type]  # Starlette's ASGI types are wider.
    path = Path(sock.getsockname())
    given = Sockets(secure_sockets=[], insecure_sockets=[sock], quic_sockets=[])
    try:
        # Not `hypercorn.trio.serve`: it takes over descriptors and leaves their sockets open.
        await worker_serve(app, config, sockets=given)
    finally:
        _close(sock, path)


def _close(sock: socket.socket, path: Path) -> None:
    path.unlink(missing_ok=True)
    sock.close()


def _listen(path: Path, mode: int) -> socket.socket:
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Nobody can connect before `listen`, so the mode is right before the first client.
    sock.bind(str(path))
    path.chmod(mode)
    sock.listen(64)
    return sock


def _give_to_group(path: Path, group: str) -> None:
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        return  # Without the group the socket stays root's.
    os.chown(path, -1, gid)


def _explanation(readable: Readable, topic: Topic) -> Route:
    async def answer(request: Request) -> Response:
        try:
            body = readable.explanation_json(topic, request.query_params.get("node"))
        except NoSuchNode as error:
            return JSONResponse({"error": str(error)}, status_code=404)
        return Response(body, media_type="application/json")

    return Route(f"/v1/explain/{topic}", answer)


def _operations(operable: Operable) -> tuple[Route, ...]:
    async def reset(request: Request) -> Response:
        if request.method == "GET":
            return _object("ResetProgress", **operable.reset_progress())
        try:
            wanted = msgspec.json.decode(await request.body(), type=ResetWanted)
        except msgspec.DecodeError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        try:
            return _object("Reset", **await operable.reset(wanted))
        except MeshdError as error:
            refusal = {"code": error.code, "cause": error.cause, "fix": error.fix}
            refusal["exit_code"] = str(error.exit_code)
            return JSONResponse({"error": error.what, "refusal": refusal}, status_code=409)

    return (Route("/v1/bootstrap/reset", reset, methods=["GET", "POST"]),)


def _object(kind: str, **fields: object) -> Response:
    return JSONResponse({"api_version": "meshd/v1", "kind": kind, **fields})


def _probe(reason: Callable[[], str | None]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        problem = reason()
        if problem is None:
            return Response("ok\n", media_type="text/plain")
        return Response(f"{problem}\n", status_code=503, media_type="text/plain")

    return answer


async def _follow(readable: Readable, after: int) -> AsyncIterator[str]:
    number = after
    while True:
        for row in readable.history_rows(after=number):
            number = max(number, int(str(row["number"])))
            yield f"id: {number}\ndata: {json.dumps(row)}\n\n"
        await readable.history_grew(after=number)
