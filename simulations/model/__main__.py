"""`python -m simulations.model --seed N` or `--seeds COUNT`: run seeds, say how to run them again.

Progress goes to stderr, results to stdout. Exit code 1 if any seed fails.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from timeit import default_timer  # A stopwatch for the people who wait; nothing simulated sees it.

from simulations.model.coverage import seldom, table
from simulations.model.machine import Strategy
from simulations.model.many import STRATEGIES, run_seeds, strategy_named
from simulations.model.open import OpenResult, report, run_open_seed, run_open_seeds
from simulations.model.runs import MESHD, Result, run_seed
from simulations.model.scenario import open_scenario_of, scenario_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m simulations.model", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, help="run this one seed")
    what.add_argument("--seeds", type=int, metavar="COUNT", help="run this many seeds")
    parser.add_argument("--start", type=int, default=0, help="first of the many (default 0)")
    parser.add_argument("--jobs", type=int, default=2, help="processes for the many (default 2)")
    parser.add_argument("--trace", action="store_true", help="print what happens in the one")
    parser.add_argument(
        "--strategy",
        default=MESHD.name,
        help=f"{', '.join(sorted(STRATEGIES))}, or package.module:TABLE/name",
    )
    parser.add_argument(
        "--open",
        action="store_true",
        help="open networks, of which some split: meshd beside Kairos' rule, without a strategy",
    )
    options = parser.parse_args(arguments)
    if options.open:
        return _open(options)
    try:
        strategy = strategy_named(options.strategy)
    except (ImportError, AttributeError, KeyError):
        parser.error(f"no strategy {options.strategy!r}; there are {', '.join(sorted(STRATEGIES))}")
    if options.seed is not None:
        return _one(options.seed, strategy, trace=options.trace)
    seeds = range(options.start, options.start + options.seeds)
    return _many(seeds, options.strategy, jobs=options.jobs)


def command_for(seed: int, strategy: str) -> str:
    """Return the command that repeats a seed of the strategy with that name."""
    other = f" --strategy {strategy}" if strategy != MESHD.name else ""
    return f"python -m simulations.model --seed {seed}{other} --trace"


def _one(seed: int, strategy: Strategy, *, trace: bool) -> int:
    print(f"SEED={seed}  {scenario_of(seed).describe()}")
    print(f"again: {command_for(seed, strategy.name)}")
    result = run_seed(seed, strategy, trace=print if trace else None, fingerprinted=True)
    print(f"{_verdict(result)}; {result.steps} steps; fingerprint {result.fingerprint}")
    return 0 if result.failure is None else 1


def _many(seeds: range, name: str, *, jobs: int) -> int:
    began = default_timer()
    failed: list[Result] = []
    reached: Counter[str] = Counter()
    waits: list[float] = []
    steps = 0
    for number, result in enumerate(run_seeds(seeds, strategy=name, jobs=jobs), start=1):
        steps += result.steps
        reached.update(dict.fromkeys(result.reached, 1))
        if result.failure is not None:
            failed.append(result)
            print(f"SEED={result.seed} {result.failure}")
            print(f"again: {command_for(result.seed, name)}", flush=True)
        elif result.formed_after_s is not None:
            waits.append(result.formed_after_s)
        if number % 100 == 0:
            rate = number / (default_timer() - began)
            print(f"{number} of {len(seeds)} seeds, {rate:.1f} seeds/s", file=sys.stderr)
    spent_s = default_timer() - began
    print("met, in so many seeds:", *table(reached), sep="\n")
    missed = seldom(reached, len(seeds)) if name == MESHD.name else []
    for what in missed:
        print(f"MET TOO SELDOM {what}")
    if waits:
        waits.sort()
        half, most = waits[len(waits) // 2], waits[-1]
        print(f"formed after the faults ended: median {half:.0f} s, longest {most:.0f} s")
    print(
        f"{len(seeds)} seeds from {seeds.start}, {len(failed)} failed; {steps} steps in "
        f"{spent_s:.1f} s, {len(seeds) / spent_s:.1f} seeds/s with {jobs} processes"
    )
    return 1 if failed or missed else 0


def _open(options: argparse.Namespace) -> int:
    if options.seed is not None:
        print(f"SEED={options.seed}  {open_scenario_of(options.seed).describe()}")
        result = run_open_seed(options.seed, print if options.trace else None)
        print(result)
        return 0 if result.flaw is None else 1
    results: list[OpenResult] = []
    seeds = range(options.start, options.start + options.seeds)
    for result in run_open_seeds(seeds, jobs=options.jobs):
        results.append(result)
        if result.flaw is not None or result.outcome != "one cluster":
            flaw = f": {result.flaw}" if result.flaw is not None else ""
            print(f"SEED={result.seed} {result.outcome}{flaw}", flush=True)
        if len(results) % 100 == 0:
            print(f"{len(results)} of {len(seeds)} seeds", file=sys.stderr)
    print(report(results))
    return 1 if any(result.flaw is not None for result in results) else 0


def _verdict(result: Result) -> str:
    if result.failure is not None:
        return f"FAILED {result.failure}"
    return f"fine: in place {result.formed_after_s:.0f} s after the faults ended"


if __name__ == "__main__":
    sys.exit(main())
