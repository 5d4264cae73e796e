"""The local API as the commands see it: HTTP/1.1 over a Unix socket, JSON in answers."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from meshd.errors import DaemonUnreachable, MeshdError, NotPermitted, UsageError

Json = dict[str, Any]
"""An object of the local API; later versions add fields, so nothing more is promised."""

TIMEOUT_S = 10.0
SOCKETS = ("meshd.sock", "ro.sock")


class Client:
    """Asks the daemon whose sockets are in `run_dir`, and waits `timeout_s` for an answer."""

    def __init__(self, run_dir: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        self.run_dir = run_dir
        self._timeout_s = timeout_s

    def get(self, path: str, **query: str | None) -> Json:
        """Return the JSON object at `path`; parameters that are None are left out.

        Raises:
            DaemonUnreachable: nothing answers.
            NotPermitted: this user may use neither socket.
            MeshdError: the daemon answered with an error.
        """
        answer = self._ask(path, query, accept="application/json", timeout_s=self._timeout_s)
        try:
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(self.run_dir, str(error)) from None
        try:
            content = json.loads(body)
        except ValueError:
            content = None
        if answer.status == http.HTTPStatus.NOT_FOUND and isinstance(content, dict):
            raise _no_such_node(str(content.get("error")))
        if answer.status != http.HTTPStatus.OK or not isinstance(content, dict):
            said = content.get("error") if isinstance(content, dict) else None
            raise MeshdError(
                "MESH-7013",
                f"the daemon answered {answer.status} to {path}",
                cause=str(said) if said else None,
                fix="the daemon may be of another version: restart it",
            )
        return content

    def follow(self, path: str, **query: str | None) -> Iterator[Json]:
        """Yield the objects that the daemon sends (server-sent events) until it stops.

        Raises:
            DaemonUnreachable: nothing answers.
        """
        answer = self._ask(path, query, accept="text/event-stream", timeout_s=None)
        while line := _next_line(answer):
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))

    def post(self, path: str, wanted: Json, *, timeout_s: float | None = None) -> Json:
        """Have the daemon do something, as root; return what it says.

        Args:
            path: where.
            wanted: what.
            timeout_s: if it may take longer than other answers.

        Raises:
            DaemonUnreachable: nothing answers.
            NotPermitted: this user is not root.
            MeshdError: the daemon refuses, with its own code and exit code.
        """
        connection = http.client.HTTPConnection("localhost")
        connection.sock = self._connect(timeout_s or self._timeout_s, SOCKETS[:1])
        try:
            body = json.dumps(wanted).encode()
            connection.request("POST", path, body, {"Connection": "close"})
            answer = connection.getresponse()
            content = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _unreachable(self.run_dir, str(error)) from None
        finally:
            connection.close()
        if answer.status == http.HTTPStatus.CONFLICT:
            raise _refused(content)
        if answer.status != http.HTTPStatus.OK:
            raise MeshdError(
                "MESH-7013",
                f"the daemon answered {answer.status} to {path}",
                cause=str(content.get("error")),
                fix="the daemon may be of another version: restart it",
            )
        return content  # type: ignore[no-any-return]

    def _ask(
        self, path: str, query: dict[str, str | None], *, accept: str, timeout_s: float | None
    ) -> http.client.HTTPResponse:
        given = {name: value for name, value in query.items() if value is not None}
        target = f"{path}?{urlencode(given)}" if given else path
        connection = http.client.HTTPConnection("localhost")
        connection.sock = self._connect(timeout_s)
        try:
            connection.request("GET", target, headers={"Accept": accept, "Connection": "close"})
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _unreachable(self.run_dir, str(error)) from None

    def _connect(self, timeout_s: float | None, names: tuple[str, ...] = SOCKETS) -> socket.socket:
        """Return a connection to the first socket that this user may use."""
        refused: OSError | None = None
        for name in names:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(timeout_s)
            try:
                sock.connect(str(self.run_dir / name))
            except PermissionError as error:
                refused = error
                sock.close()
            except OSError as error:
                refused = refused or error
                sock.close()
            else:
                return sock
        if isinstance(refused, PermissionError):
            raise NotPermitted(
                "MESH-7012",
                f"this user may not talk to the daemon in {self.run_dir}",
                fix="run it as root" + (", or join the group meshd" if len(names) > 1 else ""),
            )
        raise _unreachable(self.run_dir, refused.strerror if refused and refused.strerror else "")


def _refused(content: Json) -> MeshdError:
    """Return the daemon's refusal as the error that it is."""
    refusal = content["refusal"]
    kinds = {kind.exit_code: kind for kind in (MeshdError, UsageError, NotPermitted)}
    kind = kinds.get(int(refusal["exit_code"]), MeshdError)
    return kind(refusal["code"], content["error"], cause=refusal["cause"], fix=refusal["fix"])


def _next_line(answer: http.client.HTTPResponse) -> bytes:
    """Return the next line of a stream; empty at its end, however it ended."""
    try:
        return answer.readline()
    except (OSError, http.client.HTTPException):
        return b""


def _unreachable(run_dir: Path, why: str) -> DaemonUnreachable:
    return DaemonUnreachable(
        "MESH-7011",
        f"no daemon answers in {run_dir}" + (f": {why}" if why else ""),
        fix="start it with `systemctl start meshd` or `meshd daemon`, "
        "or name its folder with --run-dir",
    )


def _no_such_node(said: str) -> UsageError:
    what, _, fix = said.partition("; ")
    return UsageError("MESH-7014", what, fix=fix or "`meshd status` shows the nodes")


def resolve_node(content: Json, wanted: str) -> Json:
    """Return the node that `wanted` names: a name, a node id, or a unique prefix of either.

    Raises:
        UsageError: none or several do.
    """
    nodes = content["nodes"]
    exact = [node for node in nodes if wanted in {node["name"], node["id"]}]
    found = exact or [
        node for node in nodes if node["name"].startswith(wanted) or node["id"].startswith(wanted)
    ]
    if len(found) == 1:
        return found[0]  # type: ignore[no-any-return]
    names = ", ".join(sorted(str(node["name"]) for node in found or nodes))
    raise UsageError(
        "MESH-7014",
        f"{wanted!r} names {'no node' if not found else 'several nodes'}",
        fix=f"{'known are' if not found else 'choose one of'}: {names}",
    )
