"""Laying one cloud-config over another, by the rules of Kairos' collector.

Maps are merged, single values replaced, lists of maps joined, lists of values united; an explicit
null makes a value the empty one of its kind. (kairos-io/kairos-sdk, collector/collector.go:
DeepMerge, mergeSlices.)
"""

from __future__ import annotations

from dataclasses import replace

from meshd.config.schema import Finding
from meshd.config.tree import Scalar, Sequence, Table, Tree


def merge(older: Tree, newer: Tree, errors: list[Finding], path: str = "") -> Tree:
    """Return `older` with `newer` laid over it; every value keeps the place it came from.

    Where the two are of different kinds, an error naming both places goes to `errors`, and
    `older` stays.
    """
    if _is_null(older):
        return newer
    if _is_null(newer):
        return _emptied(older, newer)
    if isinstance(older, Table) and isinstance(newer, Table):
        return _merge_tables(older, newer, errors, path)
    if isinstance(older, Sequence) and isinstance(newer, Sequence):
        return _merge_sequences(older, newer)
    if isinstance(older, Scalar) and isinstance(newer, Scalar) and _replaceable(older, newer):
        return newer
    errors.append(
        Finding(
            code="MESH-1021",
            origin=newer.origin,
            message=f"{path or 'the file'} is {_kind(newer)} here, but {_kind(older)} at "
            f"{older.origin}",
            fix="make both the same kind, or remove one",
        )
    )
    return older


def _replaceable(older: Scalar, newer: Scalar) -> bool:
    """Whether both are text, numbers or booleans alike; what is not from a file has no type."""
    return _identity(older)[0] is _identity(newer)[0] or newer.origin.path is None


def _merge_tables(older: Table, newer: Table, errors: list[Finding], path: str) -> Table:
    entries = dict(older.entries)
    for key, value in newer.entries.items():
        below = f"{path}.{key}" if path else key
        known = key in entries
        entries[key] = merge(entries[key], value, errors, below) if known else value
    return Table(entries=entries, origins={**older.origins, **newer.origins}, origin=newer.origin)


def _merge_sequences(older: Sequence, newer: Sequence) -> Sequence:
    """Return both lists; the older one's first item says whether they are lists of maps.

    An empty older list gives the newer as it is, repetitions included, as in Kairos.
    """
    if not older.items:
        return newer
    items = list(older.items)
    if isinstance(items[0], Table):
        items += newer.items
        return replace(newer, items=tuple(items))
    known = {_identity(item) for item in items if isinstance(item, Scalar)}
    for item in newer.items:
        if not isinstance(item, Scalar):
            items.append(item)
        elif _identity(item) not in known:
            known.add(_identity(item))
            items.append(item)
    return replace(newer, items=tuple(items))


def _identity(scalar: Scalar) -> tuple[type, object]:
    """Return what makes two values equal: 1, true and "1" are three different ones.

    A fraction that is whole is a number: Kairos writes its values out before it merges them, and
    Go writes 2.0 as 2, up to a million (strconv.FormatFloat, format g).
    """
    value = scalar.value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e6:
        value = int(value)
    return type(value), value


def _emptied(older: Tree, newer: Tree) -> Tree:
    """Return the empty value of the kind of `older`, which stands where `newer` does."""
    if isinstance(older, Table):
        return Table(entries={}, origins={}, origin=newer.origin)
    if isinstance(older, Sequence):
        return Sequence(items=(), origin=newer.origin)
    assert older.value is not None
    empty = type(older.value)()
    text = str(empty).lower()
    return Scalar(value=empty, text=text, origin=newer.origin)


def _is_null(tree: Tree) -> bool:
    return isinstance(tree, Scalar) and tree.value is None


def _kind(tree: Tree) -> str:
    if isinstance(tree, Table):
        return "a map"
    if isinstance(tree, Sequence):
        return "a list"
    kinds = {bool: "true or false", int: "a number", float: "a fraction"}
    kind = kinds.get(_identity(tree)[0])
    # Text is not shown: it may be a secret.
    return "text" if kind is None else f"{kind} ({tree.text})"
