"""`python -m simulations.standin server|agent|--version`: k3s' command line."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Iterator, Sequence

from simulations.standin.log import Exit, log, note
from simulations.standin.options import VERSION_LINE, parse

_USAGE = f"{VERSION_LINE}\nusage: k3s server|agent [flags], k3s --version\n"


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit code k3s would have."""
    if argv and argv[0] in {"--version", "-v"}:
        sys.stdout.write(VERSION_LINE + "\n")
        return 0
    if not argv or argv[0] in {"--help", "-h", "help"}:
        sys.stdout.write(_USAGE)
        return 0
    try:
        options = parse(argv, os.environ)
        # Imported here: `--version` and usage errors need no TLS and no certificates.
        if options.command == "server":
            from simulations.standin.server import run_server as run  # noqa: PLC0415
        else:
            from simulations.standin.agent import run_agent as run  # noqa: PLC0415
        note(f"this is {VERSION_LINE}, {options.command} on node {options.node_name}")
        return asyncio.run(_until_terminated(run(options)))
    except Exit as end:
        return _ended(end)
    except BaseExceptionGroup as group:
        ends = [error for error in _leaves(group) if isinstance(error, Exit)]
        if not ends:
            raise
        return _ended(ends[0])


async def _until_terminated(work: Coroutine[None, None, None]) -> int:
    """Run until `work` raises, or SIGTERM or SIGINT comes: then return 0."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    loop.set_exception_handler(_tell)
    try:
        await task
    except asyncio.CancelledError:
        log("info", "Shutting down k3s.service...")
    return 0


def _tell(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    # Mostly clients whose TLS handshake failed; k3s writes such lines too.
    log("debug", f"http: {context.get('message')}: {context.get('exception')}")


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _ended(end: Exit) -> int:
    log(end.level, end.message)
    return end.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
