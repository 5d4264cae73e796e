"""What k3s says about itself, read over its own HTTP API.

Nothing is inferred from what k3s was told to do, and nothing from `/ping`, which a server without
etcd answers too (seen with k3s v1.34.1). Connections are kept alive: a TLS handshake costs more
than everything else a look costs.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from meshd.cluster.manifests import LEASE_NAME, LEASE_NAMESPACE
from meshd.cluster.paths import AGENT_PORT, API_PORT, K3sPaths

REQUEST_TIMEOUT_S = 2.0  # /db/info without a quorum answers later than that, and then 500.
_KEEP_ALIVE_S = 60.0
_MEMBER = re.compile(r"(?P<node>.+)-[0-9a-f]{8}")
# Lines of /readyz (Kubernetes, "API health endpoints").
_FAILED_CHECK = re.compile(r"^\[-\]", re.MULTILINE)
_ETCD_CHECK = re.compile(r"^\[-\]etcd", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """kube-vip's Lease: who serves the VIP, and when that was last renewed (holder's clock)."""

    holder: str
    renewed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReading:
    """One look at k3s on a server. None: could not be read.

    Args:
        obstacle: what k3s is not ready for, as a sentence; None once it is ready.
        api_answers: whether Kubernetes' own API is ready, which is earlier.
        greets: whether k3s hands out what a joining server begins with, which is earlier still: not
            looked at once the API answers. It is no sign of an etcd.
        voters: Kubernetes node names of etcd's voting members, sorted.
        members: those and the learners: (node name or "" while it has none, host of its peer URL).
        nodes: (name, whether Ready), sorted.
    """

    obstacle: str | None
    api_answers: bool = False
    greets: bool = False
    voters: tuple[str, ...] | None = None
    members: tuple[tuple[str, str], ...] | None = None
    uid: str | None = None
    nodes: tuple[tuple[str, bool], ...] | None = None
    lease: Lease | None = None


class ServerApi:
    """Reads a k3s server on this machine, with the credentials that lie on its disk.

    Args:
        passwords: of basic auth, by user (`server`, `node`).
    """

    def __init__(
        self, paths: K3sPaths, passwords: Mapping[str, str], *, port: int = API_PORT
    ) -> None:
        self._tls = paths.tls
        self._base = f"https://127.0.0.1:{port}"
        self._passwords = dict(passwords)
        self._credentials: tuple[int, ...] | None = None
        self._as_admin: httpx.AsyncClient | None = None
        self._as_node: httpx.AsyncClient | None = None
        self._last = ServerReading(obstacle="")

    async def close(self) -> None:
        """Drop the connections."""
        for client in (self._as_admin, self._as_node):
            if client is not None:
                await client.aclose()
        self._as_admin = self._as_node = self._credentials = None
        self._last = ServerReading(obstacle="")

    async def read(self, *, thorough: bool) -> ServerReading:
        """Look at the API and the Lease; if `thorough`, or if all was not well, at everything.

        What is not looked at is as it was: etcd's members, the Nodes, the uid, and k3s' own
        readiness change seldom once all is well.
        """
        if not await self._connect():
            self._last = ServerReading(obstacle="k3s is making its certificates")
            return self._last
        thorough = thorough or self._last.obstacle is not None
        known = self._last.voters, self._last.members
        voters, members = await self._membership() if thorough else known
        obstacle = await self._refusal(self._as_admin, "/readyz")
        if obstacle is not None:
            if not thorough:
                voters, members = await self._membership()
            greets = await self._refusal(self._as_node, "/cacerts") is None
            self._last = ServerReading(
                obstacle=obstacle, greets=greets, voters=voters, members=members
            )
            return self._last
        if thorough:
            obstacle = await self._refusal(self._as_node, "/v1-k3s/readyz", user="node")
        self._last = ServerReading(
            obstacle=obstacle,
            api_answers=True,
            voters=voters,
            members=members,
            uid=self._last.uid or await self._uid(),
            nodes=await self._nodes() if thorough else self._last.nodes,
            lease=await self._lease(),
        )
        return self._last

    async def remove_node(self, name: str) -> bool:
        """Delete a Node that is not Ready; k3s then removes its member of etcd. Return if it was.

        A Node that is Ready lives, whatever was said about it, and stays.
        """
        if not await self._connect():
            return False
        assert self._as_admin is not None
        path = f"/api/v1/nodes/{name}"
        node = await self._json(self._as_admin, path)
        if node is None or is_ready(node):
            return False
        try:
            answer = await self._as_admin.delete(path)
        except httpx.TransportError:
            return False  # The next look tries again.
        return answer.status_code == httpx.codes.OK

    async def _connect(self) -> bool:
        """Have clients that use the certificates now on disk; k3s renews them at its starts."""
        files = [
            self._tls / name for name in ("server-ca.crt", "client-admin.crt", "client-admin.key")
        ]
        try:
            state = tuple(file.stat().st_mtime_ns for file in files)
            if self._credentials == state:
                return True
            await self.close()
            admin = trusting(files[0])
            admin.load_cert_chain(files[1], files[2])
            # Without the certificate, which would win over the password.
            plain = trusting(files[0])
        except (FileNotFoundError, ssl.SSLError):  # SSLError: a file is being written.
            return False
        self._as_admin, self._as_node = client_for(self._base, admin), client_for(self._base, plain)
        self._credentials = state
        return True

    async def _refusal(
        self, client: httpx.AsyncClient | None, path: str, *, user: str | None = None
    ) -> str | None:
        answer = await self._get(client, path, user=user)
        if isinstance(answer, str):
            return answer
        return None if answer.status_code == httpx.codes.OK else _not_ready(answer)

    async def _membership(
        self,
    ) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]] | tuple[None, None]:
        record = await self._json(self._as_node, "/db/info", user="server")
        return (None, None) if record is None else (voters_of(record), members_of(record))

    async def _uid(self) -> str | None:
        record = await self._json(self._as_admin, "/api/v1/namespaces/kube-system")
        return None if record is None else str(record["metadata"]["uid"])

    async def _nodes(self) -> tuple[tuple[str, bool], ...] | None:
        record = await self._json(self._as_admin, "/api/v1/nodes")
        if record is None:
            return None
        return tuple(sorted((n["metadata"]["name"], is_ready(n)) for n in record["items"]))

    async def _lease(self) -> Lease | None:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{LEASE_NAMESPACE}/leases/{LEASE_NAME}"
        record = await self._json(self._as_admin, path)
        spec = (record or {}).get("spec") or {}
        holder = spec.get("holderIdentity")
        return Lease(holder=holder, renewed=str(spec.get("renewTime"))) if holder else None

    async def _json(
        self, client: httpx.AsyncClient | None, path: str, *, user: str | None = None
    ) -> Any:
        answer = await self._get(client, path, user=user)
        if isinstance(answer, str) or answer.status_code != httpx.codes.OK:
            return None
        return answer.json()

    async def _get(
        self, client: httpx.AsyncClient | None, path: str, *, user: str | None = None
    ) -> httpx.Response | str:
        assert client is not None
        password = self._passwords.get(user) if user else None
        auth = None if user is None or password is None else httpx.BasicAuth(user, password)
        return await get(client, path, auth=auth)


class AgentApi:
    """Reads this node's own Node object with the kubelet's certificate, through k3s' balancer."""

    def __init__(self, paths: K3sPaths, node_name: str, *, port: int = AGENT_PORT) -> None:
        self._folder = paths.agent
        self._base = f"https://127.0.0.1:{port}"
        self._path = f"/api/v1/nodes/{node_name}"
        self._credentials: tuple[int, ...] | None = None
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Drop the connection."""
        if self._client is not None:
            await self._client.aclose()
        self._client = self._credentials = None

    async def obstacle(self) -> str | None:
        """Return why this node is not a Ready worker yet, or None if it is."""
        names = ("server-ca.crt", "client-kubelet.crt", "client-kubelet.key")
        files = [self._folder / name for name in names]
        try:
            state = tuple(file.stat().st_mtime_ns for file in files)
            if self._credentials != state:
                await self.close()
                context = trusting(files[0])
                context.load_cert_chain(files[1], files[2])
                self._client, self._credentials = client_for(self._base, context), state
        except (FileNotFoundError, ssl.SSLError):
            return "k3s has no certificate from a server yet"
        assert self._client is not None
        answer = await get(self._client, self._path)
        if isinstance(answer, str):
            return answer
        if answer.status_code == httpx.codes.NOT_FOUND:
            return "its Node does not exist yet"
        if answer.status_code != httpx.codes.OK:
            return _not_ready(answer)
        return None if is_ready(answer.json()) else "its Node is not Ready yet"


def voters_of(db_info: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the node names of the voting members in `/db/info`, sorted; learners are none."""
    names = [m.get("name", "") for m in db_info["members"] if not m.get("isLearner")]
    matches = [_MEMBER.fullmatch(name) for name in names]  # A joining member has no name yet.
    return tuple(sorted(match["node"] for match in matches if match is not None))


def members_of(db_info: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return (node name, host of the first peer URL) of all members, sorted.

    A member that is still joining has no name yet, and then "" stands for it.
    """
    found = []
    for member in db_info["members"]:
        match = _MEMBER.fullmatch(member.get("name", ""))
        urls = member.get("peerURLs") or [""]
        found.append((match["node"] if match is not None else "", urlsplit(urls[0]).hostname or ""))
    return tuple(sorted(found))


def is_ready(node: Mapping[str, Any]) -> bool:
    """Whether a Node object's condition Ready is true."""
    conditions = node.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def trusting(authority: Path) -> ssl.SSLContext:
    """Return a client context that trusts only this authority, and verifies as RFC 5280 asks.

    Raises:
        FileNotFoundError, ssl.SSLError: it cannot be read.
    """
    context = ssl.create_default_context(cafile=str(authority))
    # Python 3.13's default, here with any Python. k3s' certificates have all that it asks for (seen
    # with v1.34.1): Go adds the key identifier of an authority that has one, and ours has.
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def client_for(
    base: str, context: ssl.SSLContext, *, timeout_s: float = REQUEST_TIMEOUT_S
) -> httpx.AsyncClient:
    """Return a client that keeps its connection and obeys no proxy."""
    return httpx.AsyncClient(
        base_url=base,
        verify=context,
        timeout=timeout_s,
        limits=httpx.Limits(max_connections=1, keepalive_expiry=_KEEP_ALIVE_S),
        trust_env=False,
    )


async def get(
    client: httpx.AsyncClient, path: str, *, auth: httpx.Auth | None = None
) -> httpx.Response | str:
    """Return the answer, or a sentence that says why there is none."""
    try:
        return await client.get(path, auth=auth)
    except httpx.TimeoutException:
        return f"{path} does not answer in time"
    except httpx.ConnectError as error:
        if _is_distrust(error):
            return f"another program than this k3s answers at {client.base_url}"
        return "k3s does not listen yet"
    except httpx.TransportError:
        return "k3s closed the connection"


def _is_distrust(error: BaseException | None) -> bool:
    """Whether a certificate was refused: trio and httpx wrap the reason several times."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _not_ready(answer: httpx.Response) -> str:
    """Return what k3s waits for: few different sentences, because each is told to other nodes."""
    text = answer.text
    if _ETCD_CHECK.search(text) or "apiserver not ready" in text:
        return "its API server waits for etcd"
    if _FAILED_CHECK.search(text):
        return "its API server is starting"
    if '"starting"' in text:
        return "k3s is starting"
    if "runtime core not ready" in text:
        return "k3s' controllers are starting"
    said = text.strip().partition("\n")[0][:80]
    return f"k3s answers with HTTP status {answer.status_code}: {said}"
