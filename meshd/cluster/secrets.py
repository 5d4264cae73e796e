"""What a candidate makes before anything is decided: certificate authorities and two tokens.

Made in one folder that appears by one rename: after a crash there are all of the files or none.
As they are made before k3s' first start, the authority's hash can stand in the plan: every joiner
holds a full `K10<hash>::` token and cannot join another cluster. k3s keeps authorities that it
finds (k3s contrib/util/generate-custom-ca-certs.sh).

They serve one plan. Once a plan that names them is abandoned, its members may hold them, so they
are moved aside, and others take their place.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from meshd.errors import MeshdError
from meshd.whole_file import free_name, make_folder, sync_folder, write_whole

AUTHORITIES = ("client-ca", "etcd/peer-ca", "etcd/server-ca", "request-header-ca", "server-ca")
# Fixed, so that neither needs a clock: edge boards boot in 1970, and k3s gives its own
# certificates the authority's NotBefore.
NOT_BEFORE = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
NOT_AFTER = dt.datetime(2060, 1, 1, tzinfo=dt.UTC)

_TLS_FILES = tuple(
    sorted([f"{name}.{end}" for name in AUTHORITIES for end in ("crt", "key")] + ["service.key"])
)
_TOKEN = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSecrets:
    """What the cluster of this candidate would be made of. `repr` shows no secret.

    Args:
        tls: (path below k3s' `server/tls`, content), sorted.
        server_token: 64 hex digits; whoever knows it administers the cluster.
        agent_token: 64 hex digits; lets workers join and nothing more.
    """

    tls: tuple[tuple[str, bytes], ...]
    server_token: str
    agent_token: str

    @property
    def ca_hash(self) -> str:
        """The hex SHA-256 of `server-ca.crt` as it lies on disk: the part after `K10`."""
        return hashlib.sha256(dict(self.tls)["server-ca.crt"]).hexdigest()

    @property
    def tokens(self) -> tuple[str, str]:
        """Both tokens."""
        return self.server_token, self.agent_token

    @property
    def token_commitment(self) -> str:
        """The hex SHA-256 of the server token."""
        return commitment_of(self.server_token)

    def __repr__(self) -> str:
        return f"CandidateSecrets(ca_hash={self.ca_hash})"


def prepare_secrets(state_dir: Path) -> CandidateSecrets:
    """Read this node's candidate secrets below `state_dir`, or make new ones (0.1 to 0.3 s).

    Raises:
        MeshdError: what is there is incomplete or no secret, or the disk refuses.
    """
    folder = _folder(state_dir)
    with _told_to_the_operator(folder):
        if not folder.exists():
            _make_beside(folder).rename(folder)
        sync_folder(folder.parent)  # If an earlier start died before it, too.
        return _load(folder)


class Candidacy:
    """The candidate secrets that this node has now.

    Args:
        state_dir: where they lie, or come to lie.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._secrets = prepare_secrets(state_dir)

    def secrets(self) -> CandidateSecrets:
        """Return them; ask again for each use."""
        return self._secrets

    def renew(self, spent: Collection[str]) -> None:
        """Have others if the CA's hash is among `spent`.

        Raises:
            MeshdError: the disk refuses; the next call goes on.
        """
        self._secrets = renew_secrets(self._state_dir, spent)


def renew_secrets(state_dir: Path, spent: Collection[str]) -> CandidateSecrets:
    """Move candidate secrets aside whose CA's hash is among `spent`, and have others.

    Nothing is deleted. The new ones are whole before the old ones go, so a full disk changes
    nothing. A crash leaves the old ones, which are noticed again, or none, in whose place
    `prepare_secrets` makes new ones, or the new ones, which are durable before anyone is told.

    Raises:
        MeshdError: what is there is incomplete or no secret, or the disk refuses.
    """
    folder = _folder(state_dir)
    old = prepare_secrets(state_dir)
    if old.ca_hash not in spent:
        return old  # An earlier call came as far.
    with _told_to_the_operator(folder):
        unfinished = _make_beside(folder)
        folder.rename(free_name(folder.with_name(f"spent-{old.ca_hash[:16]}")))
        sync_folder(folder.parent)
        unfinished.rename(folder)
        sync_folder(folder.parent)
        return _load(folder)


def commitment_of(token: str) -> str:
    """Return the hex SHA-256 of a token: what a plan says about it in public."""
    return hashlib.sha256(token.encode()).hexdigest()


def _folder(state_dir: Path) -> Path:
    return state_dir / "cluster" / "candidate"


@contextmanager
def _told_to_the_operator(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MeshdError(
            "MESH-5001",
            f"the cluster's secrets in {folder} cannot be read or written: {error.strerror}",
            fix="make the state directory writable for root and leave 1 MiB free",
        ) from error


def _make_beside(folder: Path) -> Path:
    """Make new secrets in a folder that has no meaning until it is renamed to `folder`."""
    make_folder(folder.parent, mode=0o700)
    unfinished = folder.with_name(".candidate.new")
    if unfinished.exists():
        shutil.rmtree(unfinished)  # Of an earlier start that was cut short; nobody has seen it.
    make_folder(unfinished / "tls" / "etcd", mode=0o700)
    for name, content in _new_tls_files():
        write_whole(unfinished / "tls" / name, content)
    for name in ("server-token", "agent-token"):
        write_whole(unfinished / name, secrets.token_hex(32).encode())
    return unfinished


def _load(folder: Path) -> CandidateSecrets:
    missing = [name for name in _TLS_FILES if not (folder / "tls" / name).is_file()]
    tokens = [_token_in(folder / name) for name in ("server-token", "agent-token")]
    if missing or None in tokens:
        raise MeshdError(
            "MESH-5002",
            f"{folder} is damaged: {', '.join(missing) or 'a token'} is missing or unreadable",
            fix=f"move {folder} away; new secrets are made unless this node's were already chosen",
        )
    server_token, agent_token = tokens
    assert server_token is not None
    assert agent_token is not None
    return CandidateSecrets(
        tls=tuple((name, (folder / "tls" / name).read_bytes()) for name in _TLS_FILES),
        server_token=server_token,
        agent_token=agent_token,
    )


def _token_in(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="ascii")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return text if _TOKEN.fullmatch(text) else None


def _new_tls_files() -> Iterator[tuple[str, bytes]]:
    for name in AUTHORITIES:
        key = ec.generate_private_key(ec.SECP256R1())
        yield f"{name}.crt", _self_signed(f"meshd-{name.replace('/', '-')}", key)
        yield f"{name}.key", _pem(key)
    yield "service.key", _pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def _self_signed(common_name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    public = key.public_key()
    subject_key_id = x509.SubjectKeyIdentifier.from_public_key(public)
    # The id in the name tells apart the authorities of different candidates.
    name = x509.Name(
        [
            x509.NameAttribute(
                x509.NameOID.COMMON_NAME, f"{common_name}-{subject_key_id.digest.hex()[:8]}"
            )
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_KEY_USAGE, critical=True)
        .add_extension(subject_key_id, critical=False)
    )
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


_KEY_USAGE = x509.KeyUsage(
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


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
