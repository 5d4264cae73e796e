"""`meshd explain`: error codes."""

import pytest

from meshd.cli.meanings import meanings
from tests.cli.conftest import Meshd


@pytest.mark.parametrize("spelled", ["MESH-3102", "mesh-3102", "3102"])
def test_a_code_is_explained_without_a_daemon(meshd: Meshd, spelled: str) -> None:
    ran = meshd("explain", spelled)
    assert (ran.code, ran.err) == (0, "")
    head, cause, fix = ran.out.splitlines()
    assert head == "MESH-3102: Machines of another network are near"
    assert cause.startswith("  typical cause: Their beacons are heard")
    assert fix.startswith("  fix: If they belong to this cluster")


def test_all_codes_are_listed(meshd: Meshd) -> None:
    lines = meshd("explain", "codes").out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(meanings())


def test_an_unknown_code_is_a_usage_error(meshd: Meshd) -> None:
    ran = meshd("explain", "MESH-0000")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error[MESH-7018]: no error has the code MESH-0000")
