"""Secrets sealed to one recipient's X25519 key, so that they can travel through the ledger.

HPKE base mode (RFC 9180; X25519, HKDF-SHA-256, ChaCha20-Poly1305). The recipient (a node id, or an
administrator's `age1…`) and the secret's name are bound into it: a value moved to another key of
the ledger does not open. Whoever sealed it is not proven here; the plan's commitment proves the
server token, and the author of its entry any other.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def seal(secret: str, *, recipient: str, sealing_key: bytes, name: str) -> bytes:
    """Return `secret` for the holder of `sealing_key` (32 bytes, public): 48 bytes longer.

    Raises:
        ValueError: `sealing_key` is no X25519 public key.
    """
    public = X25519PublicKey.from_public_bytes(sealing_key)
    return _SUITE.encrypt(secret.encode(), public, info=_context(recipient, name))


def unseal(sealed: bytes, *, recipient: str, sealing_key: X25519PrivateKey, name: str) -> str:
    """Return the secret.

    Raises:
        ValueError: it was sealed to another key, node or name, or was changed.
    """
    try:
        return _SUITE.decrypt(sealed, sealing_key, info=_context(recipient, name)).decode("ascii")
    except InvalidTag:
        raise ValueError(f"{name} was not sealed to this key") from None


def _context(recipient: str, name: str) -> bytes:
    return f"meshd sealed secret v1\n{recipient}\n{name}".encode()
