"""Keys whose signatures cost a keyed hash in place of Ed25519: most of the time went there.

Same interface, same sizes, and equally impossible to confuse: what was not signed with a machine's
secret does not verify as its signature. Real keys go on working beside them.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from functools import lru_cache

from ledger import NodeId, Signer, node_id_of, verify

Verifier = Callable[[NodeId, bytes, bytes], bool]

# Where `verify` looks up what it calls: the one place that has to be exchanged. The ledger has no
# switch for it on purpose.
_looked_up: dict[str, Verifier] = vars(sys.modules[verify.__module__])
_is_signed_for_real = _looked_up["_is_signed"]
_remembered_for_real = _looked_up["_remembered"]
_secrets: dict[NodeId, bytes] = {}


class HashSigner(Signer):
    """A simulated machine's key."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.public_key = hashlib.sha256(b"public " + secret).digest()
        self.node_id = node_id_of(self.public_key)
        _secrets[self.node_id] = secret

    def sign(self, data: bytes) -> bytes:
        """Return 64 bytes that only this secret gives for `data`."""
        return hashlib.blake2b(data, key=self._secret).digest()


@lru_cache(maxsize=256)
def signer_of(index: int, edition: int = 0) -> HashSigner:
    """Return the key of machine `index`; each wiped disk is followed by another edition."""
    return HashSigner(hashlib.sha256(f"machine {index} {edition}".encode()).digest())


def _is_signed(node_id: NodeId, signature: bytes, data: bytes) -> bool:
    secret = _secrets.get(node_id)
    if secret is None:
        return _is_signed_for_real(node_id, signature, data)
    return hashlib.blake2b(data, key=secret).digest() == signature


def _remembered(node_id: NodeId, signature: bytes, data: bytes) -> bool:
    if node_id in _secrets:
        return _is_signed(node_id, signature, data)
    return _remembered_for_real(node_id, signature, data)


_looked_up["_is_signed"] = _is_signed
_looked_up["_remembered"] = _remembered
