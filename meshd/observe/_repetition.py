"""What is said again and again is said once a minute, with a count of what was left out.

Pure. Invariant: whatever is left out is counted in a later line, of `take` or of `due`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meshd.observe._redaction import Plain

Fields = Mapping[str, Plain]

INTERVAL_S = 60.0
SAME_KIND_MAX = 60
"""Lines of one event in one interval, however they differ: a peer may make them differ."""
REMEMBERED_MAX = 512
CHANGES_ALWAYS = frozenset({"for"})
"""Fields by which a line does not become another one."""


@dataclass(slots=True)
class _Said:
    fields: Fields
    at: float
    left_out: int = 0


class Repetition:
    """Remembers what was said in the last minute."""

    def __init__(self) -> None:
        self._said: dict[str, _Said] = {}
        self._kinds: dict[str, _Said] = {}  # In `at`: when counting began.
        self._counts: dict[str, int] = {}

    def take(self, fields: Fields, now: float) -> int | None:
        """Return how many lines like this were left out before it, or None to leave it out.

        Args:
            fields: the line's, `event` among them.
            now: seconds of a clock that never goes back.
        """
        key = repr(sorted((k, str(v)) for k, v in fields.items() if k not in CHANGES_ALWAYS))
        said = self._said.get(key)
        if said is not None and now - said.at < INTERVAL_S:
            said.left_out += 1
            said.fields = fields
            return None
        if self._too_many_of_a_kind(fields, now):
            return None
        left_out = said.left_out if said is not None else 0
        self._said.pop(key, None)
        self._said[key] = _Said(fields, now)
        if len(self._said) > REMEMBERED_MAX:
            self._forget_oldest()
        return left_out

    def due(self, now: float) -> list[tuple[Fields, int]]:
        """Return what was left out and never said since, with how often; ask now and then."""
        found = []
        for table in (self._said, self._kinds):
            for key, said in list(table.items()):
                if now - said.at < INTERVAL_S:
                    continue
                del table[key]
                if said.left_out:
                    found.append((said.fields, said.left_out))
        self._counts = {kind: self._counts[kind] for kind in self._kinds}
        return found

    def _too_many_of_a_kind(self, fields: Fields, now: float) -> bool:
        kind = str(fields["event"])
        counted = self._kinds.get(kind)
        if counted is None or (now - counted.at >= INTERVAL_S and not counted.left_out):
            self._kinds[kind], self._counts[kind] = _Said(fields, now), 0
        self._counts[kind] += 1
        if self._counts[kind] <= SAME_KIND_MAX:
            return False
        self._kinds[kind].left_out += 1
        self._kinds[kind].fields = fields
        return True

    def _forget_oldest(self) -> None:
        """Drop one that has nothing to tell; if all have, the kinds' limit has been reached."""
        for key, said in self._said.items():
            if not said.left_out:
                del self._said[key]
                return
