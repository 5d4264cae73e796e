"""The tour itself, and the benchmark, as a person starts them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from simulations.lab import removal
from tests.lab.conftest import Bench

pytestmark = pytest.mark.lab


def test_the_tour_forms_loses_the_holder_works_on_and_leaves_nothing(bench: Bench) -> None:
    run = bench.demo("--nodes", "4")
    assert run.code == 0, run.err
    for claim in (
        "stand-in",
        "etcd has 3 of 3 voters",
        "formed",
        "k3s ready on all 4 nodes",
        "10.0.0.50 answers on 6443, held by n",
        "killed n",
        "10.0.0.50 answers again, held by n",
        "written through 10.0.0.50",
        "no namespace, process, mount or file is left",
    ):
        assert claim in run.err
    assert "control plane 3/3 ready" in run.out  # Of `meshd status`.
    assert removal.leftovers(bench.places) == ()


def test_a_tour_beside_a_laboratory_of_its_name_leaves_that_alone(bench: Bench) -> None:
    built = bench.up(nodes=1, boots=False)
    run = bench.demo()
    assert run.code == 1
    assert "MESH-8002" in run.err
    assert built.places.record.exists()


def test_a_tour_that_does_not_succeed_fails_with_logs_and_leaves_nothing(bench: Bench) -> None:
    run = bench.demo("--nodes", "3", "--limit", "1")  # No etcd ever had three voters so soon.
    assert run.code == 1
    assert "error[MESH-8011]: not seen within 1 s: " in run.err
    assert "fix: the logs below say why" in run.err
    assert "--- n2: last lines of meshd's log" in run.err
    assert removal.leftovers(bench.places) == ()
    kept = Path(run.err.rstrip().rpartition(" ")[2])
    assert (kept / "n1-meshd.log").exists()
    shutil.rmtree(kept)


def test_a_tour_of_too_few_servers_is_refused(bench: Bench) -> None:
    run = bench.demo("--nodes", "2")
    assert run.code == 2
    assert "MESH-8018" in run.err


def test_a_tour_that_is_ended_by_a_signal_leaves_nothing(bench: Bench) -> None:
    command = [sys.executable, "-m", "simulations.lab"]
    environment = dict(os.environ) | {"MESHD_LAB": bench.places.lab}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as tour:
        assert tour.stderr is not None
        for line in tour.stderr:
            if "daemons answer" in line:
                tour.send_signal(signal.SIGTERM)
    assert tour.returncode == 130
    assert removal.leftovers(bench.places) == ()


def test_the_benchmark_measures_every_quantity(bench: Bench, tmp_path: Path) -> None:
    output = tmp_path / "build" / "bench.json"
    run = bench.demo("bench", "--quick", "--output", str(output))
    assert run.code == 0, run.err
    found = json.loads(output.read_text(encoding="utf-8"))
    whats = [figure["what"] for figure in found["figures"]]
    assert len(whats) == len(set(whats)) == 16
    assert all(figure["value"] > 0 for figure in found["figures"])
    assert all(what in run.out for what in whats)
