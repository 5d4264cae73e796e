"""The mesh: authenticated connections to the members of this network, over py-libp2p.

`LibP2PMesh` implements `meshd.ports.Mesh`; `meshd.mesh.fake.FakeMesh` is its in-memory
counterpart. py-libp2p is imported only when `LibP2PMesh` is asked for: that takes 0.6 s and 80 MB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshd.mesh.libp2p_mesh import LibP2PMesh

__all__ = ["LibP2PMesh"]


def __getattr__(name: str) -> object:
    if name == "LibP2PMesh":
        from meshd.mesh.libp2p_mesh import LibP2PMesh  # noqa: PLC0415  (see above)

        return LibP2PMesh
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
