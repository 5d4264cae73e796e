"""A real etcd beside the stand-in, and its key-value and membership calls over the HTTP gateway.

k3s runs etcd inside its own process; here it is a child that the kernel kills when the stand-in
dies. Timers and files are k3s' (pkg/etcd/etcd.go); Debian's etcd 3.4 serves the gateway at /v3/.
"""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simulations.standin.layout import Layout, write
from simulations.standin.log import log
from simulations.standin.wire import Client, Unreachable

CLIENT_PORT = 2379
PEER_PORT = 2380
_STOP_LIMIT_S = 1.0
_LINE_BYTES_MAX = 1 << 20


class EtcdError(Exception):
    """etcd refused or did not answer; the text is etcd's own or `context deadline exceeded`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValue:
    """A stored value; `revision` is that of its last change."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An etcd member; one that was added and never started has no name."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    learner: bool

    def as_json(self) -> dict[str, Any]:
        """Return the member as /db/info shows it: what is empty is left out."""
        shown: dict[str, Any] = {"ID": self.id, "peerURLs": self.peer_urls}
        if self.name:
            shown["name"] = self.name
        if self.client_urls:
            shown["clientURLs"] = self.client_urls
        return shown | ({"isLearner": True} if self.learner else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One member as it sees itself."""

    member_id: int
    leader_id: int
    learner: bool
    applied: int


class Etcd:
    """etcd's calls; the first endpoint that answers is asked."""

    def __init__(self, layout: Layout, endpoints: Sequence[str]) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        folder = layout.tls / "etcd"
        tls.load_verify_locations(folder / "server-ca.crt")
        tls.load_cert_chain(folder / "client.crt", folder / "client.key")
        self._client = Client(tls)
        self._endpoints = tuple(endpoints)

    async def call(self, path: str, body: dict[str, Any], timeout_s: float = 5.0) -> Any:
        """Return the JSON answer of one gateway call; raises EtcdError."""
        text = json.dumps(body).encode()
        problem = "no endpoints"
        for endpoint in self._endpoints:
            try:
                answer = await self._client.request(
                    "POST", f"{endpoint}/v3/{path}", body=text, timeout_s=timeout_s
                )
            except Unreachable as error:
                deadline = "context deadline exceeded"
                problem = deadline if str(error).endswith(deadline) else str(error)
                continue
            if answer.status == 200:
                return answer.json()
            raise EtcdError(_message(answer.body))
        raise EtcdError(problem)

    async def get(self, key: str, *, timeout_s: float = 5.0) -> KeyValue | None:
        """Return the value of `key` as a majority knows it."""
        answer = await self.call("kv/range", {"key": _encoded(key)}, timeout_s)
        return next(iter(_key_values(answer)), None)

    async def below(self, prefix: str, *, local: bool = False) -> tuple[int, list[KeyValue]]:
        """Return the revision and all values below `prefix`; `local` may be out of date."""
        body = {"key": _encoded(prefix), "range_end": _range_end(prefix), "serializable": local}
        answer = await self.call("kv/range", body)
        return int(answer["header"]["revision"]), _key_values(answer)

    async def put(self, key: str, value: bytes, *, lease_s: int = 0) -> None:
        """Write whatever is there now; gone after `lease_s` seconds unless that is 0."""
        body: dict[str, Any] = {"key": _encoded(key), "value": base64.b64encode(value).decode()}
        if lease_s:
            body["lease"] = (await self.call("lease/grant", {"TTL": lease_s}))["ID"]
        await self.call("kv/put", body)

    async def swap(self, key: str, value: bytes, *, revision: int) -> int | None:
        """Write if the key was last changed at `revision` (0: does not exist).

        Returns the new revision, or None if it was changed by somebody else.
        """
        put = {"key": _encoded(key), "value": base64.b64encode(value).decode()}
        return await self._if_unchanged(key, revision, {"request_put": put})

    async def delete(self, key: str, *, revision: int | None = None) -> bool:
        """Delete, if `revision` is given only when unchanged since; returns whether it did."""
        request = {"key": _encoded(key)}
        if revision is None:
            answer = await self.call("kv/deleterange", request)
            return int(answer.get("deleted", 0)) > 0
        return (
            await self._if_unchanged(key, revision, {"request_delete_range": request}) is not None
        )

    async def _if_unchanged(self, key: str, revision: int, change: dict[str, Any]) -> int | None:
        compare = {
            "key": _encoded(key),
            "target": "MOD",
            "result": "EQUAL",
            "mod_revision": revision,
        }
        answer = await self.call("kv/txn", {"compare": [compare], "success": [change]})
        return int(answer["header"]["revision"]) if answer.get("succeeded") else None

    async def members(self) -> tuple[Member, ...]:
        """Return all members as a majority knows them."""
        # etcd 3.4 lists its own view without asking anybody; k3s' etcd 3.6 asks the majority.
        await self.get("health")
        answer = await self.call("cluster/member/list", {})
        return tuple(_member(fields) for fields in answer.get("members", ()))

    async def status(self) -> Status:
        """Return what the asked member knows of itself; needs no majority."""
        answer = await self.call("maintenance/status", {})
        return Status(
            member_id=int(answer["header"]["member_id"]),
            leader_id=int(answer.get("leader", 0)),
            learner=bool(answer.get("isLearner", False)),
            applied=int(answer.get("raftAppliedIndex", 0)),
        )

    async def add_learner(self, peer_url: str) -> None:
        """Add a member that does not vote yet."""
        await self.call("cluster/member/add", {"peerURLs": [peer_url], "isLearner": True}, 20.0)

    async def promote(self, member_id: int) -> None:
        """Make a learner a voter; etcd refuses while it lags behind."""
        await self.call("cluster/member/promote", {"ID": str(member_id)})

    async def move(self, member_id: int, peer_url: str) -> None:
        """Give a member another address."""
        body = {"ID": str(member_id), "peerURLs": [peer_url]}
        await self.call("cluster/member/update", body)

    async def remove(self, member_id: int) -> None:
        """Remove a member for good."""
        await self.call("cluster/member/remove", {"ID": str(member_id)}, 20.0)

    def close(self) -> None:
        """Drop the connections."""
        self._client.close()


class EtcdProcess:
    """The child process; what it writes goes to stderr as it would from inside k3s."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child
        self._removed = False
        self._reading = asyncio.ensure_future(self._pass_on_output())

    @classmethod
    async def start(
        cls,
        layout: Layout,
        *,
        name: str,
        address: str,
        cluster: str,
        new: bool,
        arguments: Sequence[str],
        reset: bool = False,
    ) -> EtcdProcess:
        """Start etcd; `cluster` is its `initial-cluster`, unused if it has a log on disk.

        With `reset` it forgets all other members, and answers on the loopback only.
        """
        settings = _settings(layout, name, address, cluster, new=new)
        if reset:
            settings |= _ALONE
        for argument in arguments:
            key, _, value = argument.partition("=")
            settings[key] = int(value) if value.isdigit() else value
        file = layout.etcd / "config"
        write(file, json.dumps(settings, indent=1))  # JSON is YAML.
        child = await asyncio.create_subprocess_exec(
            "setpriv",
            "--pdeathsig",
            "KILL",
            "etcd",
            "--config-file",
            str(file),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES_MAX,
        )
        return cls(child)

    async def ended(self) -> tuple[int, bool]:
        """Wait for its end; returns its exit code and whether it was removed from its cluster."""
        # `wait` leaves the reader alone when this waiting is cancelled; `stop` still needs it.
        await asyncio.wait([self._reading])
        return await self._child.wait(), self._removed

    async def stop(self) -> None:
        """End it: politely first."""
        if self._child.returncode is None:
            self._child.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_LIMIT_S):
                await self._child.wait()
        except TimeoutError:
            self._child.kill()
            await self._child.wait()
        await self._reading

    async def _pass_on_output(self) -> None:
        assert self._child.stderr is not None
        while line := await self._child.stderr.readline():
            sys.stderr.write(line.decode(errors="replace"))
            sys.stderr.flush()
            self._removed = self._removed or b"permanently removed" in line
        log("debug", "etcd closed its log")


def url(address: str, port: int) -> str:
    """Return https://address:port, with brackets around an IPv6 address."""
    return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"


def _settings(
    layout: Layout, name: str, address: str, cluster: str, *, new: bool
) -> dict[str, Any]:
    tls = layout.tls / "etcd"

    def security(pair: str, authority: str) -> dict[str, Any]:
        return {
            "cert-file": str(tls / f"{pair}.crt"),
            "key-file": str(tls / f"{pair}.key"),
            "trusted-ca-file": str(tls / f"{authority}.crt"),
            "client-cert-auth": True,
        }

    return {
        "name": name,
        "data-dir": str(layout.etcd),
        "listen-client-urls": f"https://127.0.0.1:{CLIENT_PORT},{url(address, CLIENT_PORT)}",
        "listen-peer-urls": f"https://127.0.0.1:{PEER_PORT},{url(address, PEER_PORT)}",
        "advertise-client-urls": url(address, CLIENT_PORT),
        "initial-advertise-peer-urls": url(address, PEER_PORT),
        "initial-cluster": cluster,
        "initial-cluster-state": "new" if new else "existing",
        "client-transport-security": security("server-client", "server-ca"),
        "peer-transport-security": security("peer-server-client", "peer-ca"),
        "heartbeat-interval": 500,
        "election-timeout": 5000,
        "snapshot-count": 10000,
        "logger": "zap",
        "log-outputs": ["stderr"],
        "experimental-initial-corrupt-check": True,
        "enable-grpc-gateway": True,  # The flag defaults to true, the file to false.
    }


_ALONE: dict[str, Any] = {
    "force-new-cluster": True,
    "listen-client-urls": f"https://127.0.0.1:{CLIENT_PORT}",
    "listen-peer-urls": f"https://127.0.0.1:{PEER_PORT}",
    "advertise-client-urls": f"https://127.0.0.1:{CLIENT_PORT}",
}


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _range_end(prefix: str) -> str:
    key = prefix.encode()
    return base64.b64encode(key[:-1] + bytes([key[-1] + 1])).decode()


def _key_values(answer: dict[str, Any]) -> list[KeyValue]:
    return [
        KeyValue(
            key=base64.b64decode(kv["key"]).decode(),
            value=base64.b64decode(kv.get("value", "")),
            revision=int(kv["mod_revision"]),
        )
        for kv in answer.get("kvs", ())
    ]


def _member(fields: dict[str, Any]) -> Member:
    return Member(
        id=int(fields["ID"]),
        name=fields.get("name", ""),
        peer_urls=tuple(fields.get("peerURLs", ())),
        client_urls=tuple(fields.get("clientURLs", ())),
        learner=bool(fields.get("isLearner", False)),
    )


def _message(body: bytes) -> str:
    try:
        fields = json.loads(body)
    except ValueError:
        return body.decode(errors="replace").strip()
    return str(fields.get("message") or fields.get("error") or fields)
