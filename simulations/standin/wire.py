"""HTTP/1.1 over TLS, both ends, on asyncio streams and h11: small, kept alive, no framework."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import h11

BODY_SIZE_MAX_BYTES = 3 << 20  # kube-apiserver's limit.
_READ_BYTES = 1 << 16
_ERRNO_WORDS = {
    errno.ECONNREFUSED: "connection refused",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network is unreachable",
    errno.ECONNRESET: "connection reset by peer",
}


class Unreachable(Exception):
    """No answer came; the text is worded as Go's net/http words it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered."""

    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """Go's word for the status, such as `503 Service Unavailable`."""
        return f"{self.status} {HTTPStatus(self.status).phrase}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request; `subject` holds the verified client certificate's (field, value) pairs."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    subject: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """One response; the body is JSON unless said otherwise."""

    status: int
    body: bytes
    content_type: str = "application/json"


Handler = Callable[[Request], Awaitable[Reply]]


@dataclass(slots=True)
class _Line:
    """One connection with what was read from it and not yet used."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    protocol: h11.Connection

    async def event(self) -> h11.Event:
        while True:
            event = self.protocol.next_event()
            if isinstance(event, h11.Event):
                return event
            assert event is h11.NEED_DATA
            self.protocol.receive_data(await self.reader.read(_READ_BYTES))

    async def body(self) -> bytes:
        """Read the rest of the message."""
        parts: list[bytes] = []
        size = 0
        while isinstance(event := await self.event(), h11.Data):
            parts.append(bytes(event.data))
            size += len(event.data)
            if size > BODY_SIZE_MAX_BYTES:
                raise h11.RemoteProtocolError("body too large", error_status_hint=413)
        return b"".join(parts)

    async def send(self, *events: h11.Event) -> None:
        for event in events:
            self.writer.write(self.protocol.send(event) or b"")
        await self.writer.drain()


@dataclass(slots=True)
class Client:
    """Asks servers that one TLS context trusts; keeps connections for the next question."""

    tls: ssl.SSLContext
    _idle: dict[tuple[str, int], list[_Line]] = field(default_factory=dict)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 10.0,
    ) -> Answer:
        """Return the answer of any status; raises Unreachable if none came within `timeout_s`."""
        where = f'{method.capitalize()} "{url}"'
        target = urlsplit(url)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(method, url, headers or {}, body)
        except TimeoutError as error:
            raise Unreachable(f"{where}: context deadline exceeded") from error
        except h11.RemoteProtocolError as error:
            raise Unreachable(f"{where}: EOF") from error
        except ssl.SSLError as error:
            raise Unreachable(f"{where}: tls: {error.reason or error}") from error
        except OSError as error:
            if error.errno is None:
                raise Unreachable(f"{where}: EOF") from error  # Closed in the TLS handshake.
            words = _ERRNO_WORDS.get(error.errno, str(error))
            raise Unreachable(f"{where}: dial tcp {target.netloc}: connect: {words}") from error

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        target = urlsplit(url)
        place = (target.hostname or "", target.port or 443)
        line = await self._line(place)
        try:
            fields = {"Host": target.netloc, "Content-Length": str(len(body)), **headers}
            path = target.path + (f"?{target.query}" if target.query else "")
            await line.send(
                h11.Request(method=method, target=path, headers=list(fields.items())),
                h11.Data(data=body),
                h11.EndOfMessage(),
            )
            head = await line.event()
            if not isinstance(head, h11.Response):
                raise h11.RemoteProtocolError("no response")
            answer = Answer(head.status_code, await line.body())
        except BaseException:
            # Also on cancellation: a half-used connection would answer the next question wrongly.
            line.writer.transport.abort()
            raise
        self._keep(place, line)
        return answer

    async def _line(self, place: tuple[str, int]) -> _Line:
        idle = self._idle.get(place, [])
        while idle:
            line = idle.pop()
            if not line.reader.at_eof() and not line.writer.is_closing():
                return line
            line.writer.close()
        reader, writer = await asyncio.open_connection(*place, ssl=self.tls)
        return _Line(reader, writer, h11.Connection(h11.CLIENT))

    def _keep(self, place: tuple[str, int], line: _Line) -> None:
        if line.protocol.our_state is h11.DONE and line.protocol.their_state is h11.DONE:
            line.protocol.start_next_cycle()
            self._idle.setdefault(place, []).append(line)
        else:
            line.writer.close()

    def close(self) -> None:
        """Drop the idle connections."""
        for lines in self._idle.values():
            for line in lines:
                line.writer.close()
        self._idle.clear()


def listen(port: int) -> socket.socket:
    """Return a listening socket on all addresses, IPv6 included where the machine has it."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128
        )
    return socket.create_server(("0.0.0.0", port), backlog=128)  # noqa: S104 - k3s listens so.


async def serve(listener: socket.socket, tls: ssl.SSLContext, handler: Handler) -> asyncio.Server:
    """Start answering on `listener`; each connection may ask many times."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = _Line(reader, writer, h11.Connection(h11.SERVER))
        try:
            while await _answer_one(line, handler):
                pass
        except (OSError, h11.RemoteProtocolError):
            pass  # The client left or speaks no HTTP: nobody is there to be told.
        finally:
            writer.close()

    return await asyncio.start_server(connected, sock=listener, ssl=tls)


async def _answer_one(line: _Line, handler: Handler) -> bool:
    """Answer one request; returns whether the connection can carry another."""
    head = await line.event()
    if not isinstance(head, h11.Request):
        return False
    if line.protocol.they_are_waiting_for_100_continue:
        await line.send(h11.InformationalResponse(status_code=100, headers=[]))
    reply = await handler(_request(head, await line.body(), line.writer))
    length = str(len(reply.body))
    headers = [("Content-Type", reply.content_type), ("Content-Length", length)]
    await line.send(
        h11.Response(
            status_code=reply.status, headers=headers, reason=HTTPStatus(reply.status).phrase
        ),
        h11.Data(data=b"" if head.method == b"HEAD" else reply.body),
        h11.EndOfMessage(),
    )
    if line.protocol.our_state is not h11.DONE or line.protocol.their_state is not h11.DONE:
        return False
    line.protocol.start_next_cycle()
    return True


def _request(head: h11.Request, body: bytes, writer: asyncio.StreamWriter) -> Request:
    target = urlsplit(head.target.decode("latin-1"))
    certificate = writer.get_extra_info("peercert") or {}
    query = parse_qs(target.query, keep_blank_values=True)
    return Request(
        method=head.method.decode(),
        path=unquote(target.path),
        query={key: values[-1] for key, values in query.items()},
        headers={key.decode(): value.decode("latin-1") for key, value in head.headers},
        body=body,
        subject=tuple(pair for group in certificate.get("subject", ()) for pair in group),
    )
