"""Laying one cloud-config over another, by the rules of Kairos' collector.

Maps are merged, scalars replaced, lists of maps joined, lists of scalars united; an explicit null
takes a value away. (kairos-io/kairos-sdk, collector/collector.go: DeepMerge.)
"""

from __future__ import annotations

from meshd.config.tree import Scalar, Sequence, Table, Tree
from meshd.errors import ConfigError


def merge(older: Tree, newer: Tree, path: str = "") -> Tree:
    """Return `older` with `newer` laid over it; every value keeps the place it came from.

    Raises:
        ConfigError: one is a map, a list or a single value where the other is not.
    """
    if _is_null(older) or _is_null(newer):
        return newer
    if isinstance(older, Table) and isinstance(newer, Table):
        return _merge_tables(older, newer, path)
    if isinstance(older, Sequence) and isinstance(newer, Sequence):
        return _merge_sequences(older, newer)
    if isinstance(older, Scalar) and isinstance(newer, Scalar):
        return newer
    raise ConfigError(
        "MESH-1021",
        f"{newer.origin}:{newer.origin.column}: {path or 'the file'} is {_kind(newer)}, "
        f"but {_kind(older)} at {older.origin}",
        fix="make both the same kind, or remove one",
    )


def _merge_tables(older: Table, newer: Table, path: str) -> Table:
    entries = dict(older.entries)
    for key, value in newer.entries.items():
        below = f"{path}.{key}" if path else key
        entries[key] = merge(entries[key], value, below) if key in entries else value
    return Table(entries=entries, origins={**older.origins, **newer.origins}, origin=newer.origin)


def _merge_sequences(older: Sequence, newer: Sequence) -> Sequence:
    items = older.items
    if all(isinstance(item, Scalar) for item in (*older.items, *newer.items)):
        known = {item.value for item in items if isinstance(item, Scalar)}
        added = (item for item in newer.items if isinstance(item, Scalar))
        items += tuple(item for item in added if item.value not in known)
    else:
        items += newer.items
    return Sequence(items=items, origin=newer.origin)


def _is_null(tree: Tree) -> bool:
    return isinstance(tree, Scalar) and tree.value is None


def _kind(tree: Tree) -> str:
    if isinstance(tree, Table):
        return "a map"
    return "a list" if isinstance(tree, Sequence) else f"the value {tree.text!r}"
