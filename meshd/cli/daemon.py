"""`meshd daemon`: what the service unit starts."""

from __future__ import annotations

from pathlib import Path

import click

KAIROS_MARK = Path("/etc/kairos-release")
"""Kairos keeps /usr/local across reboots and upgrades, but not /var."""


def state_dir_default() -> Path:
    """Return where state survives a reboot on this kind of host."""
    return Path("/usr/local/.meshd" if KAIROS_MARK.exists() else "/var/lib/meshd")


@click.command()
@click.option(
    "--config",
    "config",
    metavar="PATH",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Cloud-config file or folder; may be repeated. Replaces the default folders.",
)
@click.option(
    "--state-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=state_dir_default,
    show_default="/var/lib/meshd; on Kairos /usr/local/.meshd",
    help="Where identity and database are kept; it must survive a reboot.",
)
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
