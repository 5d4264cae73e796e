"""A disk that hangs, and one that turns read-only under a running daemon."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from simulations.lab import kernel
from simulations.lab.places import NodePlaces
from tests.lab.conftest import Bench
from tests.lab.test_troubles import health_codes, small_disk, status_of

pytestmark = pytest.mark.lab


@contextmanager
def frozen(node: NodePlaces) -> Iterator[None]:
    """Let every write to a node's state wait (FIFREEZE)."""
    subprocess.run(["fsfreeze", "--freeze", node.state], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", node.state], check=True)


def test_a_disk_that_hangs_and_one_that_turns_read_only(bench: Bench, tmp_path: Path) -> None:
    built = bench.up(nodes=3, boots=False)
    n1 = built.node("n1")
    with small_disk(n1, tmp_path / "disk"):
        built.start("n1")
        built.start("n2")
        bench.wait_until("n1 and n2 to meet", lambda: len(status_of(built, "n1")["nodes"]) == 2)
        with frozen(n1):
            built.start("n3")
            bench.wait_until("n1 to say it", lambda: "MESH-2030" in health_codes(built, "n1"))
            # It lives, as the others see, and has no voice: three votes are needed.
            states = {node["name"]: node["state"] for node in status_of(built, "n2")["nodes"]}
            assert states["n1"] == "alive"
            assert bench.clusters() == ()
        bench.wait_until_complete(built)
        bench.wait_until("n1 to be well", lambda: not health_codes(built, "n1"))

        # As after an error of the medium: the kernel lets nothing be written any more.
        subprocess.run(["mount", "-o", "remount,abort", n1.state], check=True)
        built.kill("n3")  # Something to write down.
        bench.wait_until("n1 to say it", lambda: "MESH-2001" in health_codes(built, "n1"))
        assert status_of(built, "n2")["genesis"]["phase"] == "formed"
        # The disk is checked, the machine switched on again: nothing was lost. (On a copy, for
        # other mount namespaces of this machine may still hold the first one.)
        built.kill("n1")
        kernel.unmount(n1.state)
        mended = shutil.copyfile(tmp_path / "disk", tmp_path / "mended")
        checked = subprocess.run(["e2fsck", "-p", mended], check=False, capture_output=True)
        assert checked.returncode in {0, 1}, checked  # Clean, or mended.
        subprocess.run(["mount", "-o", "loop", mended, n1.state], check=True)
        built.start("n1")
        built.start("n3")
        bench.wait_until_complete(built)
        bench.wait_until("n1 to be well", lambda: not health_codes(built, "n1"))
    assert len(bench.clusters()) == 1
