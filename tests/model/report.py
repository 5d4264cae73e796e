"""`python -m tests.model.report`: every mutant, what caught it and how soon; which checks are weak.

Exit code 1 if a mutant is not caught, or a check is weak.
"""

from __future__ import annotations

import sys

from tests.model.catches import CATCHES, Found, find, weak


def main() -> int:
    """Look for all mutants; return the exit code."""
    caught: list[Found] = []
    missed: list[str] = []
    for catch in CATCHES:
        found = find(catch)
        if found is None:
            missed.append(catch.mutant)
            _say(f"{catch.mutant:30} NOT CAUGHT")
            continue
        caught.append(found)
        _say(f"{catch.mutant:30} {catch.check}: {found.where}: {found.failure[:80]}")
    idle = weak(caught)
    _say(f"{len(caught)} of {len(CATCHES)} caught")
    _say(f"weak checks, which nothing made fire: {', '.join(idle) or 'none'}")
    return 1 if missed or idle else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
