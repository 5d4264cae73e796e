"""Reads and writes a cluster from outside, as a client that owes meshd nothing.

Goes over the network to k3s' own port with the administrator's certificate that k3s left on the
node's disk; meshd is not asked, so a meshd that errs cannot hide it.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from contextlib import closing
from pathlib import Path
from typing import Any

from simulations.lab.kernel import inside_network
from simulations.lab.places import NodePlaces

API_PORT = 6443
TIMEOUT_S = 3.0

Json = dict[str, Any]


class Unanswered(Exception):
    """The server did not answer as a working one does; the text says how."""


class Server:
    """The API at one address.

    Args:
        namespace: the network namespace to ask from.
        address: whom to ask.
        data: k3s' data folder whose credentials are used; its authority must be the server's.
    """

    def __init__(self, namespace: Path, address: str, data: Path) -> None:
        self._namespace = namespace
        self._address = address
        self._data = data
        self._open: http.client.HTTPSConnection | None = None

    def close(self) -> None:
        """Drop the connection, if there is one."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def get(self, path: str) -> Json:
        """Return the object at `path`; raises Unanswered."""
        return self._ask("GET", path, None, {})

    def post(self, path: str, content: Json) -> Json:
        """Make an object and return it as it was made; raises Unanswered."""
        return self._ask("POST", path, content, {"Content-Type": "application/json"})

    def cluster_uid(self) -> str:
        """Return the uid of namespace kube-system: another cluster has another; or Unanswered."""
        return str(self.get("/api/v1/namespaces/kube-system")["metadata"]["uid"])

    def voters(self) -> tuple[str, ...]:
        """Return the names of etcd's voting members, sorted; raises Unanswered."""
        try:
            token = (self._data / "server" / "token").read_text(encoding="ascii").strip()
        except OSError as error:
            raise Unanswered(str(error)) from None
        password = token.rpartition("::server:")[2]
        basic = base64.b64encode(f"server:{password}".encode()).decode()
        # A certificate would win over the password.
        plain = _connection(self._namespace, self._address, self._data, as_admin=False)
        with closing(plain):
            record = self._over(plain, "GET", "/db/info", None, {"Authorization": f"Basic {basic}"})
        members = [member for member in record["members"] if not member.get("isLearner")]
        return tuple(sorted(str(member.get("name", "")) for member in members))

    def _ask(self, method: str, path: str, content: Json | None, headers: dict[str, str]) -> Json:
        if self._open is None:
            self._open = _connection(self._namespace, self._address, self._data, as_admin=True)
        try:
            return self._over(self._open, method, path, content, headers)
        except Unanswered:
            self.close()
            raise

    def _over(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        content: Json | None,
        headers: dict[str, str],
    ) -> Json:
        body = None if content is None else json.dumps(content)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            text = answer.read()
            record = json.loads(text) if answer.status // 100 == 2 else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unanswered(f"{self._address}: {error}") from None
        if not isinstance(record, dict):
            said = text.decode(errors="replace")[:200]
            raise Unanswered(f"{self._address}: {answer.status} {answer.reason}: {said}")
        return record


def server_on(node: NodePlaces) -> Server:
    """Return the server on a node, asked from that node: a cut does not hide it."""
    return Server(node.namespace_file, node.address, node.k3s_folder)


def has_credentials(node: NodePlaces) -> bool:
    """Whether a k3s server has run on the node's disk."""
    return (node.k3s_folder / "server" / "tls" / "client-admin.key").exists()


class _FromNamespace(http.client.HTTPSConnection):
    """Connects from another network namespace."""

    def __init__(self, namespace: Path, address: str, context: ssl.SSLContext) -> None:
        super().__init__(address, API_PORT, timeout=TIMEOUT_S, context=context)
        self._namespace = namespace
        self._trusting = context

    def connect(self) -> None:
        with inside_network(self._namespace):
            plain = socket.create_connection((self.host, self.port), timeout=TIMEOUT_S)
        try:
            self.sock = self._trusting.wrap_socket(plain, server_hostname=self.host)
        except (OSError, ssl.SSLError):
            plain.close()
            raise


def _connection(
    namespace: Path, address: str, data: Path, *, as_admin: bool
) -> http.client.HTTPSConnection:
    tls = data / "server" / "tls"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(tls / "server-ca.crt")
        if as_admin:
            context.load_cert_chain(tls / "client-admin.crt", tls / "client-admin.key")
    except OSError as error:  # Of which SSLError is a kind: a file is being written.
        raise Unanswered(f"no credentials in {tls}: {error}") from None
    return _FromNamespace(namespace, address, context)
