"""A k3s server's HTTP side as it was observed with v1.34.1: codes by path, credential and stage."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from meshd.cluster.k3s import Lease
from meshd.cluster.secrets import CandidateSecrets

_KEY_USAGE = x509.KeyUsage(
    digital_signature=True,
    key_encipherment=True,
    key_cert_sign=False,
    content_commitment=False,
    data_encipherment=False,
    key_agreement=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
STAGES = ("starting", "supervisor", "etcd", "checks", "api", "ready")


@dataclass
class FakeApi:
    """What the fake answers from; change it while it serves."""

    passwords: dict[str, str]
    stage: str = "ready"
    members: list[dict[str, Any]] = field(default_factory=list)
    nodes: dict[str, bool] = field(default_factory=dict)
    lease: Lease | None = None
    uid: str = "uid-1"
    connections: int = 0
    asked: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    port: int = 0

    def answer(self, path: str, credential: str) -> tuple[int, str]:
        """Return status and body; `credential`: none, wrong, server, node or cert."""
        at = STAGES.index(self.stage)
        if path == "/db/info":
            return self._members(at, credential)
        if at == 0:
            return 503, '{"message": "starting"}'
        if path in ("/ping", "/cacerts"):
            return 200, "pong"
        if path == "/v1-k3s/readyz":
            if credential != "node":
                return _refused(credential)
            return (200, "ok") if at == 5 else (503, '{"message": "runtime core not ready"}')
        return self._kubernetes(path, at, credential)

    def _members(self, at: int, credential: str) -> tuple[int, str]:
        if at == 0:
            return 401, '{"message": "not authorized"}'
        if credential != "server":
            return _refused(credential)
        if at == 1:
            return 500, '{"message": "failed to get etcd MemberList: etcd not started"}'
        return 200, json.dumps({"members": self.members})

    def _kubernetes(self, path: str, at: int, credential: str) -> tuple[int, str]:
        if at < 3:
            return 503, '{"message": "apiserver not ready"}'
        if credential != "cert":
            return 401, '{"message": "Unauthorized"}'
        if path == "/readyz":
            return (200, "ok") if at > 3 else (500, "[+]ping ok\n[-]poststarthook/rbac failed\n")
        if path.rpartition("/")[2] in self.deleted:
            return 200, "{}"
        found = self._object(path)
        return (404, "{}") if found is None else (200, json.dumps(found))

    def _object(self, path: str) -> dict[str, Any] | None:
        folder, _, name = path.rpartition("/")
        if path == "/api/v1/namespaces/kube-system":
            return {"metadata": {"uid": self.uid}}
        if path == "/api/v1/nodes":
            return {"items": [self._node(name) for name in self.nodes]}
        if folder == "/api/v1/nodes" and name in self.nodes:
            return self._node(name)
        if name == "plndr-cp-lock" and self.lease is not None:
            return {"spec": {"holderIdentity": self.lease.holder, "renewTime": self.lease.renewed}}
        return None

    def _node(self, name: str) -> dict[str, Any]:
        status = "True" if self.nodes[name] else "Unknown"
        conditions = [{"type": "Ready", "status": status}]
        return {"metadata": {"name": name}, "status": {"conditions": conditions}}


def _refused(credential: str) -> tuple[int, str]:
    if credential == "wrong":
        return 401, '{"message": "not authorized"}'
    return 403, '{"message": "forbidden"}'


def write_credentials(
    tls: Path, secrets: CandidateSecrets, *, client: str = "client-admin"
) -> None:
    """Lay out what k3s has in its folder once it listens: authority and a client's certificate."""
    files = dict(secrets.tls)
    tls.mkdir(parents=True, exist_ok=True)
    (tls / "server-ca.crt").write_bytes(files["server-ca.crt"])
    certificate, key = _signed(files, "client-ca", client)
    (tls / f"{client}.crt").write_bytes(certificate)
    (tls / f"{client}.key").write_bytes(key)


@contextmanager
def serving(api: FakeApi, secrets: CandidateSecrets, folder: Path) -> Iterator[FakeApi]:
    """Serve `api` with TLS on a free port of 127.0.0.1."""
    files = dict(secrets.tls)
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = _signed(files, "server-ca", "k3s")
    (folder / "serving.pem").write_bytes(certificate + key)
    (folder / "client-ca.crt").write_bytes(files["client-ca.crt"])
    context = ssl.create_default_context(
        ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "client-ca.crt")
    )
    context.load_cert_chain(folder / "serving.pem")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # Python 3.13's default, here with any Python.

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            api.connections += 1
            super().setup()

        def _respond(self) -> None:
            api.asked.append(self.path)
            status, body = api.answer(self.path, self._credential())
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = _respond  # noqa: N815 - as http.server asks.

        def _remove(self) -> None:
            if self._credential() == "cert":
                name = self.path.rpartition("/")[2]
                api.nodes.pop(name, None)
                api.deleted.append(name)
            self._respond()

        do_DELETE = _remove  # noqa: N815

        def _credential(self) -> str:
            assert isinstance(self.connection, ssl.SSLSocket)
            header = self.headers.get("Authorization")
            if header is None:
                return "cert" if self.connection.getpeercert() else "none"
            user, _, password = base64.b64decode(header.split()[1]).decode().partition(":")
            return user if api.passwords.get(user) == password else "wrong"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self) -> tuple[ssl.SSLSocket, Any]:
            plain, address = self.socket.accept()
            return context.wrap_socket(plain, server_side=True), address

    with Server(("127.0.0.1", 0), Handler) as server:
        api.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()


def _signed(files: dict[str, bytes], authority: str, name: str) -> tuple[bytes, bytes]:
    """Return a certificate with the extensions that k3s v1.34.1 gives its own, and its key.

    The authority's key identifier comes from Go, which adds it to whatever an authority signs
    (crypto/x509, CreateCertificate). RFC 5280, 4.2.1.1 asks for it, and strict verification too.
    """
    issuer = x509.load_pem_x509_certificate(files[f"{authority}.crt"])
    issuer_key = load_pem_private_key(files[f"{authority}.key"], None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    local = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    issuer_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    purpose = {
        "server-ca": ExtendedKeyUsageOID.SERVER_AUTH,
        "client-ca": ExtendedKeyUsageOID.CLIENT_AUTH,
    }[authority]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(_KEY_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName([local]), critical=False)
        .sign(issuer_key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), private
