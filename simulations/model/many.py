"""Many seeds in several processes; the result of each is the same in any process."""

from __future__ import annotations

import gc
import importlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TypeVar

from simulations.model.kairos import KAIROS
from simulations.model.machine import Strategy
from simulations.model.mutants import MUTANTS
from simulations.model.runs import MESHD, Result, run_seed

STRATEGIES = {MESHD.name: MESHD, KAIROS.name: KAIROS, **MUTANTS}

_BATCH_SEEDS = 8

Found = TypeVar("Found")


def run_seeds(seeds: Sequence[int], *, strategy: str, jobs: int) -> Iterator[Result]:
    """Run seeds; results come in the order of the seeds."""
    return in_processes(partial(run_named, strategy=strategy), seeds, jobs=jobs)


def in_processes(
    run: Callable[[int], Found], seeds: Sequence[int], *, jobs: int
) -> Iterator[Found]:
    """Call `run` for each seed, in several processes if `jobs` is more than 1."""
    if jobs == 1:
        yield from map(run, seeds)
        return
    # A fresh interpreter per process: no thread of the caller is half copied by a fork.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=gc.freeze) as pool:
        yield from pool.map(run, seeds, chunksize=_BATCH_SEEDS)


def run_named(seed: int, strategy: str) -> Result:
    """Run one seed of a strategy that is named; garbage is collected only after it, for speed."""
    gc.disable()
    try:
        return run_seed(seed, strategy_named(strategy))
    finally:
        gc.enable()
        gc.collect()


def strategy_named(name: str) -> Strategy:
    """Return a strategy by its name, or as `package.module:TABLE/name`.

    Raises:
        KeyError: there is none of that name.
    """
    module, colon, rest = name.partition(":")
    if not colon:
        return STRATEGIES[name]
    table, _, entry = rest.partition("/")
    found: dict[str, Strategy] = getattr(importlib.import_module(module), table)
    return found[entry]
