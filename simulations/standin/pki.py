"""k3s' certificate files: authorities that are kept if they lie there, leaves made from them.

Names and places are k3s' (pkg/daemons/control/deps/deps.go). Keys are EC P-256, `service.key` is
RSA 2048.
"""

from __future__ import annotations

import base64
import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from simulations.standin.layout import Layout, write

_AUTHORITIES = ("server-ca", "client-ca", "request-header-ca", "etcd/server-ca", "etcd/peer-ca")
_BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
_SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)

# Names in the answer of /v1-k3s/server-bootstrap (k3s pkg/daemons/config, ControlRuntimeBootstrap).
BOOTSTRAP_FILES: Mapping[str, str] = {
    "ServerCA": "server-ca.crt",
    "ServerCAKey": "server-ca.key",
    "ClientCA": "client-ca.crt",
    "ClientCAKey": "client-ca.key",
    "RequestHeaderCA": "request-header-ca.crt",
    "RequestHeaderCAKey": "request-header-ca.key",
    "ETCDServerCA": "etcd/server-ca.crt",
    "ETCDServerCAKey": "etcd/server-ca.key",
    "ETCDPeerCA": "etcd/peer-ca.crt",
    "ETCDPeerCAKey": "etcd/peer-ca.key",
    "ServiceKey": "service.key",
}


def ensure_authorities(tls: Path) -> None:
    """Make the authorities and the service key that are missing; never touch one that is there."""
    for name in _AUTHORITIES:
        certificate, key = tls / f"{name}.crt", tls / f"{name}.key"
        if not (certificate.is_file() and key.is_file()):
            _make_authority(certificate, key, f"k3s-{name.replace('/', '-')}@standin")
    service = tls / "service.key"
    if not service.is_file():
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        write(
            service,
            private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
        )


def bootstrap_answer(tls: Path) -> bytes:
    """Return the authorities for a joining server: JSON, file contents in base64."""
    files = {
        name: {
            "Timestamp": int((tls / path).stat().st_mtime),
            "Content": base64.b64encode((tls / path).read_bytes()).decode(),
        }
        for name, path in BOOTSTRAP_FILES.items()
    }
    return json.dumps(files).encode()


def take_bootstrap(tls: Path, answer: bytes) -> None:
    """Write what `bootstrap_answer` of another server gave, byte for byte."""
    for name, entry in json.loads(answer).items():
        write(tls / BOOTSTRAP_FILES[name], base64.b64decode(entry["Content"]))


def write_server_leaves(
    layout: Layout, *, node_name: str, address: str, san: Sequence[str]
) -> None:
    """Make this server's leaf certificates anew and k3s' copies beside the authorities."""
    tls = layout.tls
    local = ("127.0.0.1", "::1", "localhost", address, node_name)
    kubernetes = [f"kubernetes{rest}" for rest in ("", ".default", ".default.svc")]
    cluster = (*kubernetes, "kubernetes.default.svc.cluster.local", "10.43.0.1")
    serving = (*local, *cluster, *san)
    for name in ("server-ca", "client-ca"):
        write(tls / f"{name}.nochain.crt", (tls / f"{name}.crt").read_bytes())
    write(tls / "service.current.key", (tls / "service.key").read_bytes())
    leaves = {
        "serving-kube-apiserver": _Leaf(
            authority="server-ca", name="kube-apiserver", usages=_SERVER, san=serving
        ),
        "client-admin": _administrator("system:admin"),
        "client-supervisor": _administrator("system:k3s-supervisor"),
        # etcd's HTTP gateway calls etcd with its own serving certificate: both usages are needed.
        "etcd/server-client": _Leaf(
            authority="etcd/server-ca", name="etcd-server", usages=_BOTH, san=local
        ),
        "etcd/peer-server-client": _Leaf(
            authority="etcd/peer-ca", name="etcd-peer", usages=_BOTH, san=local
        ),
        "etcd/client": _Leaf(authority="etcd/server-ca", name="etcd-client", usages=_CLIENT),
    }
    for path, leaf in leaves.items():
        _write_leaf(tls, path, leaf)


def kubelet_certificate(tls: Path, node_name: str) -> bytes:
    """Return certificate and key of a kubelet, one PEM text."""
    leaf = _Leaf(
        authority="client-ca",
        name=f"system:node:{node_name}",
        groups=("system:nodes",),
        usages=_CLIENT,
    )
    certificate, key = _signed(tls, leaf)
    return certificate + key


def write_kubeconfig(layout: Layout, *, port: int, mode: int) -> None:
    """Write the administrator's kubeconfig for this server's loopback address."""

    def inline(name: str) -> str:
        return base64.b64encode((layout.tls / name).read_bytes()).decode()

    text = f"""apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {inline("server-ca.crt")}
    server: https://127.0.0.1:{port}
  name: default
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
kind: Config
preferences: {{}}
users:
- name: default
  user:
    client-certificate-data: {inline("client-admin.crt")}
    client-key-data: {inline("client-admin.key")}
"""
    write(layout.kubeconfig, text, mode)


def _administrator(name: str) -> _Leaf:
    return _Leaf(authority="client-ca", name=name, groups=("system:masters",), usages=_CLIENT)


def _make_authority(certificate: Path, key: Path, name: str) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(private.public_key())
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        key_cert_sign=True,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    built = (
        _dated(private.public_key(), subject, subject, days=3650)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .sign(private, hashes.SHA256())
    )
    write(key, _key_text(private))
    write(certificate, built.public_bytes(Encoding.PEM))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leaf:
    """What a leaf certificate says, and the authority that signs it."""

    authority: str
    name: str
    groups: tuple[str, ...] = ()
    usages: tuple[x509.ObjectIdentifier, ...]
    san: tuple[str, ...] = ()


def _write_leaf(tls: Path, path: str, leaf: _Leaf) -> None:
    certificate, key = _signed(tls, leaf)
    write(tls / f"{path}.crt", certificate)
    write(tls / f"{path}.key", key)


def _signed(tls: Path, leaf: _Leaf) -> tuple[bytes, bytes]:
    authority = tls / f"{leaf.authority}.crt"
    issuer = x509.load_pem_x509_certificate(authority.read_bytes())
    signer = load_pem_private_key(authority.with_suffix(".key").read_bytes(), password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    private = ec.generate_private_key(ec.SECP256R1())
    organisations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in leaf.groups]
    subject = x509.Name([*organisations, x509.NameAttribute(NameOID.COMMON_NAME, leaf.name)])
    own_id = x509.SubjectKeyIdentifier.from_public_key(private.public_key())
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = (
        _dated(private.public_key(), subject, issuer.subject, days=365)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(leaf.usages), critical=False)
        .add_extension(own_id, critical=False)
        .add_extension(issuer_id, critical=False)
    )
    if leaf.san:
        names = [_general_name(text) for text in dict.fromkeys(leaf.san)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    built = builder.sign(signer, hashes.SHA256())
    return built.public_bytes(Encoding.PEM) + authority.read_bytes(), _key_text(private)


def _dated(
    key: ec.EllipticCurvePublicKey, subject: x509.Name, issuer: x509.Name, *, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _key_text(private: ec.EllipticCurvePrivateKey) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
