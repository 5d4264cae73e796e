"""Signatures: checked once, remembered if that is cheap."""

from __future__ import annotations

import tracemalloc

from ledger import verify
from tests.ledger.world import signer_of


def test_a_signature_is_its_signers_over_these_bytes_only() -> None:
    for size in (0, 100, 100_000):
        data = bytes(size)
        signature = signer_of(1).sign(data)
        for _ in range(2):  # The second answer may be a remembered one.
            assert verify(signer_of(1).node_id, signature, data)
            assert not verify(signer_of(2).node_id, signature, data)
            assert not verify(signer_of(1).node_id, signature, data + b"x")
            assert not verify(signer_of(1).node_id, signature[::-1], data)


def test_large_bodies_are_not_kept_in_memory() -> None:
    """A peer may send frames of 60 KiB whose signatures have to be looked at, as fast as it can."""
    node, signature = signer_of(1).node_id, bytes(64)
    tracemalloc.start()
    try:
        for number in range(200):
            assert not verify(node, signature, number.to_bytes(4, "big") * 15_000)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1024 * 1024
