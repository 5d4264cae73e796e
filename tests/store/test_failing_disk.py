"""A full disk, and one with errors, from any boundary on: no vote from doubt, and no dead end.

The node must found its cluster once the disk works again, or, if the disk failed while it started,
end with a code and start again without a trace.
"""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.store.lives import Lives, RefuseAt, boundaries, chosen, ended_formed, judged, report
from tests.store.record import Record, Told

REFUSED = 2
"""Exit code of a life whose start was refused, with an error for the operator."""


def told_codes(record: Record) -> set[str | None]:
    return {line.code for line in record.read() if isinstance(line, Told)}


@pytest.mark.parametrize("start_only", [False, True])
@pytest.mark.parametrize(
    ("number", "count"), [(errno.ENOSPC, 1), (errno.ENOSPC, 9), (errno.EIO, 1)]
)
def test_a_disk_that_refuses_for_a_while_costs_no_vote_and_no_life(
    lives: Lives, opened_once: Path, number: int, count: int, *, start_only: bool
) -> None:
    template = None if start_only else opened_once
    whole = boundaries(lives, lives.folder(template), "initialiser", start_only=start_only)
    outcomes, wrong = Counter[str](), list[str]()
    for boundary in chosen(whole, 5):
        folder, refuse = lives.folder(template), RefuseAt(boundary, number, count)
        record = Record(folder / "record")
        code = lives.live(folder, start_only=start_only, decide=refuse)
        what = f"boundary {boundary}: {[f'{c.call} {c.path.name}' for c in refuse.refused]}"
        if code not in (0, REFUSED) or (code == 0 and not start_only and not ended_formed(record)):
            wrong.append(f"exit {code} at {what}")
        if lives.live(folder, start_only=start_only, examined=True, seed=1) != 0:
            wrong.append(f"no second life after {what}")
        wrong += [f"{line} after {what}" for line in judged(record)]
        codes = sorted(code for code in told_codes(record) if code is not None)
        outcomes[f"exit {code} {codes}"] += 1
        shutil.rmtree(folder)
    report(
        f"refused-{errno.errorcode[number]}-{count}-{'start' if start_only else 'genesis'}",
        (f"{count:6} {how}" for how, count in sorted(outcomes.items())),
    )
    assert wrong == []
