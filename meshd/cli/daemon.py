"""`meshd daemon`: what the service unit starts."""

from __future__ import annotations

from pathlib import Path

import click

from meshd.cli.state_dir import state_dir_option


@click.command()
@click.option(
    "--config",
    "config",
    metavar="PATH",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Cloud-config file or folder; may be repeated. Replaces the default folders.",
)
@state_dir_option
@click.option(
    "--run-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("/run/meshd"),
    show_default=True,
    envvar="MESHD_RUN_DIR",
    help="Where the local API's sockets are.",
)
def daemon(config: tuple[Path, ...], state_dir: Path, run_dir: Path) -> int:
    """Run the daemon in the foreground until it is told to stop."""
    from meshd.daemon import run_daemon

    return run_daemon(config=config, state_dir=state_dir, run_dir=run_dir)
