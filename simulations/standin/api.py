"""The answers on port 6443: k3s' supervisor paths and the Kubernetes API, by who asks.

Codes and bodies are those seen on k3s v1.34: the supervisor's roles do not include each other,
and the API server takes client certificates only.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any

from simulations.standin import kube, pki
from simulations.standin.etcd import Etcd, EtcdError
from simulations.standin.kube import Fields, Kind, Objects, Refused
from simulations.standin.layout import Layout
from simulations.standin.log import log
from simulations.standin.options import VERSION
from simulations.standin.tokens import Passwords
from simulations.standin.wire import Reply, Request

NodeGone = Callable[[Fields], Awaitable[None]]


class Caller(Enum):
    """Who asks, by basic authentication or client certificate."""

    NOBODY = "no credentials"
    LIAR = "wrong password"
    NODE = "node:"
    SERVER = "server:"
    ADMIN = "system:masters"
    KUBELET = "system:nodes"


_SERVER_PATHS = frozenset({"/v1-k3s/server-bootstrap", "/db/info"})
_PUBLIC_PATHS = frozenset({"/ping", "/cacerts"})
_KUBELET_KINDS = frozenset({"nodes", "leases", "events", "pods"})
_HEALTH_PATHS = frozenset({"/readyz", "/livez", "/healthz"})
# All fields of version.Info: the Kubernetes clients insist on them.
_VERSION_INFO = {
    "major": "1",
    "minor": "34",
    "gitVersion": VERSION,
    "gitCommit": "",
    "gitTreeState": "",
    "buildDate": "",
    "goVersion": "",
    "compiler": "",
    "platform": "linux",
}
APISERVERS = "/registry/masterleases/"
NODE_PASSWORDS = "/standin/node-passwords/"


class Api:
    """Answers requests; what is not up yet is None and answered as k3s does while starting."""

    def __init__(self, *, layout: Layout, passwords: Passwords, config: Mapping[str, str]) -> None:
        self._layout = layout
        self._passwords = passwords
        self._config = config
        self.routed = False
        self.etcd: Etcd | None = None
        self.objects: Objects | None = None
        self.node_gone: NodeGone | None = None

    async def __call__(self, request: Request) -> Reply:
        try:
            return await self._answer(request)
        except Refused as refusal:
            return _failure(refusal.code, refusal.reason, refusal.message)
        except EtcdError as error:
            return _etcd_failure(error)

    async def _answer(self, request: Request) -> Reply:
        path = request.path
        if not self.routed:
            # k3s' first moments: the port is open, nothing is behind it yet.
            if path == "/db/info":
                raise Refused(401, "Unauthorized", "not authorized")
            raise Refused(503, "ServiceUnavailable", "starting")
        if path in _PUBLIC_PATHS:
            return self._public(path)
        caller = self._caller(request)
        if path.startswith(("/v1-k3s/", "/db/")):
            return await self._supervisor(request, caller)
        return await self._apiserver(request, caller)

    def _public(self, path: str) -> Reply:
        if path == "/ping":
            return _text("pong")
        return _text((self._layout.tls / "server-ca.crt").read_text(encoding="utf-8"))

    def _caller(self, request: Request) -> Caller:
        header = request.headers.get("authorization", "")
        if header.startswith("Basic "):
            return self._by_password(header.removeprefix("Basic "))
        if ("organizationName", "system:masters") in request.subject:
            return Caller.ADMIN
        if ("organizationName", "system:nodes") in request.subject:
            return Caller.KUBELET
        return Caller.LIAR if header else Caller.NOBODY

    def _by_password(self, encoded: str) -> Caller:
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return Caller.LIAR
        if (user, password) == ("server", self._passwords.server):
            return Caller.SERVER
        if (user, password) == ("node", self._passwords.agent):
            return Caller.NODE
        return Caller.LIAR

    async def _supervisor(self, request: Request, caller: Caller) -> Reply:
        if caller is Caller.LIAR:
            raise Refused(401, "Unauthorized", "not authorized")
        if request.path in _SERVER_PATHS:
            allowed = caller is Caller.SERVER
        else:
            allowed = caller in {Caller.NODE, Caller.KUBELET}
        if not allowed:
            raise Refused(403, "Forbidden", "forbidden")
        return await self._supervised(request)

    async def _supervised(self, request: Request) -> Reply:
        """Answer a supervisor path to a caller who may see it."""
        reply: Reply
        match request.path:
            case "/v1-k3s/readyz":
                if self.objects is None:
                    raise Refused(503, "ServiceUnavailable", "runtime core not ready")
                reply = _text("ok")
            case "/v1-k3s/config":
                reply = _json(200, {**self._config, "Version": VERSION})
            case "/v1-k3s/apiservers":
                reply = _json(200, await self._apiservers())
            case "/v1-k3s/server-ca.crt" | "/v1-k3s/client-ca.crt":
                name = request.path.rpartition("/")[2]
                reply = _text((self._layout.tls / name).read_text(encoding="utf-8"))
            case "/v1-k3s/client-kubelet.crt":
                reply = await self._kubelet_certificate(request)
            case "/v1-k3s/server-bootstrap":
                reply = Reply(200, pki.bootstrap_answer(self._layout.tls))
            case "/db/info":
                reply = await self._member_list()
            case _:
                raise Refused(404, "NotFound", f"404 page not found: {request.path}")
        return reply

    async def _apiservers(self) -> list[str]:
        if self.etcd is None:
            return []
        _, found = await self.etcd.below(APISERVERS)
        return [item.value.decode() for item in found]

    async def _member_list(self) -> Reply:
        prefix = "failed to get etcd MemberList: "
        if self.etcd is None:
            raise Refused(500, "InternalError", prefix + "etcd not started")
        try:
            members = await self.etcd.members()
        except EtcdError as error:
            raise Refused(500, "InternalError", f"{prefix}{error}") from error
        return _json(200, {"members": [member.as_json() for member in members]})

    async def _kubelet_certificate(self, request: Request) -> Reply:
        """Hand a node its certificate; the first password that a name came with counts."""
        name = request.headers.get("k3s-node-name", "")
        password = request.headers.get("k3s-node-password", "")
        if not name or not password:
            raise Refused(400, "BadRequest", "node name or password not set")
        if self.etcd is None or self.objects is None:
            raise Refused(503, "ServiceUnavailable", "runtime core not ready")
        key = NODE_PASSWORDS + name
        known = await self.etcd.get(key)
        if known is None:
            await self.etcd.swap(key, password.encode(), revision=0)
            known = await self.etcd.get(key)
        if known is None or known.value != password.encode():
            problem = f"unable to verify password for node {name}: hash does not match"
            log("error", f"Sending HTTP/1.1 403 response: {problem}")
            raise Refused(403, "Forbidden", problem)
        return _text(pki.kubelet_certificate(self._layout.tls, name).decode())

    async def _apiserver(self, request: Request, caller: Caller) -> Reply:
        if self.objects is None or self.etcd is None:
            raise Refused(503, "ServiceUnavailable", "apiserver not ready")
        if caller not in {Caller.ADMIN, Caller.KUBELET}:
            raise Refused(401, "Unauthorized", "Unauthorized")
        path = request.path.rstrip("/")
        if path in _HEALTH_PATHS:
            return await self._health(self.etcd, path.removeprefix("/"))
        if path == "/version":
            return _json(200, _VERSION_INFO)
        if path == "/metrics":
            return _text("# The stand-in measures nothing.\n")
        return await self._resource(request, caller)

    async def _health(self, etcd: Etcd, check: str) -> Reply:
        try:
            await etcd.get("health", timeout_s=2.0)
        except EtcdError as error:
            lines = ("[+]ping ok", f"[-]etcd failed: {error}", f"{check} check failed", "")
            return Reply(500, "\n".join(lines).encode(), "text/plain")
        return _text("ok")

    async def _resource(self, request: Request, caller: Caller) -> Reply:
        kind, namespace, name = _place(request.path)
        if caller is Caller.KUBELET:
            _judge_kubelet(request, kind, name)
        assert self.objects is not None
        match request.method, bool(name):
            case "GET", True:
                return _json(200, await self.objects.get(kind, namespace, name))
            case "GET", False:
                if request.query.get("watch") in {"true", "1"}:
                    raise Refused(400, "BadRequest", "the stand-in does not offer watches")
                chosen = request.query.get("labelSelector", "")
                return _json(200, await self.objects.find(kind, namespace, chosen=chosen))
            case "POST", False:
                fields = _object(request.body)
                return _json(201, await self.objects.create(kind, namespace, fields))
            case "PUT", True:
                fields = _object(request.body)
                return _json(200, await self.objects.update(kind, namespace, name, fields))
            case "PATCH", True:
                patch = _patch(request)
                return _json(200, await self.objects.merge(kind, namespace, name, patch))
            case "DELETE", True:
                return await self._delete(kind, namespace, name)
            case _:
                problem = "the server does not allow this method here"
                raise Refused(405, "MethodNotAllowed", problem)

    async def _delete(self, kind: Kind, namespace: str, name: str) -> Reply:
        assert self.objects is not None
        assert self.etcd is not None
        old = await self.objects.delete(kind, namespace, name)
        if kind is kube.NODE:
            await self.etcd.delete(NODE_PASSWORDS + name)
            if self.node_gone is not None:
                await self.node_gone(old)
        details = {"name": name, "kind": kind.plural, "uid": old["metadata"]["uid"]}
        return _json(200, _status("Success") | {"details": details})


def _judge_kubelet(request: Request, kind: Kind, name: str) -> None:
    """Refuse a node what is none of its business."""
    if kind.plural not in _KUBELET_KINDS:
        raise Refused(403, "Forbidden", f"nodes may not use {kind.plural} here")
    # Since Kubernetes 1.32 (AuthorizeNodeWithSelectors).
    own = ("commonName", f"system:node:{name}")
    if kind is kube.NODE and request.method != "POST" and own not in request.subject:
        raise Refused(403, "Forbidden", "a node may read only its own Node")


def _place(path: str) -> tuple[Kind, str, str]:
    """Return (kind, namespace, name) of an API path; namespace and name may be empty."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 3:
        version, rest = parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        version, rest = "/".join(parts[1:3]), parts[3:]
    else:
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    namespace = ""
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] != "status":
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3 or (len(rest) == 3 and rest[2] != "status"):
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    return kube.kind_served_at(version, rest[0]), namespace, rest[1] if len(rest) > 1 else ""


def _object(body: bytes) -> Fields:
    try:
        fields = json.loads(body)
    except ValueError as error:
        raise Refused(400, "BadRequest", f"the body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise Refused(400, "BadRequest", "the body is not an object")
    return fields


def _patch(request: Request) -> Fields:
    if request.headers.get("content-type", "").startswith("application/json-patch"):
        raise Refused(415, "UnsupportedMediaType", "the stand-in takes merge patches only")
    return _object(request.body)


def _etcd_failure(error: EtcdError) -> Reply:
    if str(error).endswith("context deadline exceeded"):
        text = f"Timeout: request did not complete within requested timeout - {error}"
        return _failure(504, "Timeout", text)
    return _failure(500, "InternalError", f"etcdserver: {error}")


def _status(outcome: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": outcome}


def _failure(code: int, reason: str, message: str) -> Reply:
    return _json(code, _status("Failure") | {"message": message, "reason": reason, "code": code})


def _json(code: int, value: object) -> Reply:
    return Reply(code, json.dumps(value, separators=(",", ":")).encode() + b"\n")


def _text(text: str) -> Reply:
    return Reply(200, text.encode(), "text/plain")
