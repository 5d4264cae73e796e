"""A stand-in for `fastecdsa`, which py-libp2p imports for ECDSA and Secp256k1 keys.

The real package exists as source only and needs a compiler and libgmp. meshd uses Ed25519 and
X25519 alone, so nothing here is ever called; every name that libp2p.crypto imports is an
empty class.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

_MODULES = ("curve", "keys", "point", "encoding", "encoding.sec1", "encoding.util")


def install() -> bool:
    """Put the stand-in into `sys.modules` unless the real package is there; True if it did."""
    if "fastecdsa" in sys.modules or importlib.util.find_spec("fastecdsa") is not None:
        return False
    sys.modules["fastecdsa"] = ModuleType("fastecdsa")
    for name in _MODULES:
        module = ModuleType(f"fastecdsa.{name}")
        for absent in ("Curve", "Point", "SEC1Encoder"):
            setattr(module, absent, type(absent, (), {}))
        setattr(module, "int_bytelen", _byte_length)  # noqa: B010  (a module has no such field)
        sys.modules[module.__name__] = module
        parent, _, child = module.__name__.rpartition(".")
        setattr(sys.modules[parent], child, module)
    return True


def _byte_length(number: int) -> int:
    """Return how many bytes `number` fills, as fastecdsa.encoding.util.int_bytelen does."""
    return (number.bit_length() + 7) // 8
