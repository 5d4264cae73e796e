"""200 merges with the results that Kairos' own code gave (kairos-io/kairos-sdk 14f5755).

The files were made at random; `collector.DeepMerge` merged them, after writing and reading each as
the collector does (valuesCopy). A result of null: it refused. Cases in which it panics (two lists
of lists) were left out. 60 000 more agreed when these were made.
"""

import json
from pathlib import Path

import pytest

from meshd.config.sources import Sources, read_text
from meshd.config.tree import plain

CASES = json.loads(Path(__file__).with_name("kairos_merges.json").read_text(encoding="utf-8"))


def merged(files: list[str]) -> Sources:
    """All files, each laid over those before."""
    sources = Sources()
    for number, text in enumerate(files):
        read = read_text(f"#cloud-config\n{text}", Path(f"{number}.yaml"))
        assert read.errors == []
        sources.lay_over(read.content)
    return sources


def typed(value: object) -> object:
    """A value in which true, 1 and "1" differ, and 1 and 1.0 do not: Go writes both as 1."""
    if isinstance(value, dict):
        return {key: typed(below) for key, below in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return isinstance(value, bool), value


@pytest.mark.parametrize("number", range(len(CASES)))
def test_files_become_what_kairos_makes_of_them(number: int) -> None:
    files, result = CASES[number]["files"], CASES[number]["result"]
    sources = merged(files)
    if result is None:
        assert {error.code for error in sources.errors} == {"MESH-1021"}
    else:
        assert sources.errors == []
        assert typed(plain(sources.content)) == typed(result)


def test_both_outcomes_are_among_the_cases() -> None:
    refused = [case for case in CASES if case["result"] is None]
    assert (len(CASES), len(refused)) == (200, 50)
