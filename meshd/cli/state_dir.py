"""Where the daemon keeps its state, for the commands that need no daemon to read it."""

from __future__ import annotations

from pathlib import Path

import click

KAIROS_MARK = Path("/etc/kairos-release")
"""Kairos keeps /usr/local across reboots and upgrades, but not /var."""


def state_dir_default() -> Path:
    """Return where state survives a reboot on this kind of host."""
    return Path("/usr/local/.meshd" if KAIROS_MARK.exists() else "/var/lib/meshd")


state_dir_option = click.option(
    "--state-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=state_dir_default,
    envvar="MESHD_STATE_DIR",
    help="Where identity and database are kept; it must survive a reboot.  "
    "[default: /var/lib/meshd; on Kairos /usr/local/.meshd]",
)
