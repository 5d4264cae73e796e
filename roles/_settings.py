"""Settings that all servers must share, in words: which of them differ between two nodes."""

from __future__ import annotations

from roles._types import Candidate


def difference(one: Candidate, other: Candidate) -> str:
    """Return what `one` has and `other` has not: "cluster-cidr (10.44.0.0/16, not the default)".

    A node publishes what it sets other than usual; one of an older version publishes the hash only.
    """
    ours, theirs = dict(one.settings), dict(other.settings)
    keys = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if not keys:
        return f"hash {one.settings_hash[:8]}, not {other.settings_hash[:8]}"
    return ", ".join(
        f"{key} ({ours.get(key, 'the default')}, not {theirs.get(key, 'the default')})"
        for key in keys
    )
