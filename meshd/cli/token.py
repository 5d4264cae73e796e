"""`meshd token`: one line of text that makes machines one network."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshd.cli.output import output_option, print_object
from meshd.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from datetime import date

    from meshd.config import Token


_expires = click.option(
    "--expires",
    metavar="7d|DATE",
    help="The last day on which it lets a machine in, or in how many days or weeks (7d, 2w) that "
    "is.  [default: never]",
)


@click.group()
def token() -> None:
    """Make and inspect tokens."""


@token.command()
@click.option(
    "--control-plane", type=int, default=3, show_default=True, help="Control-plane nodes wanted."
)
@click.option(
    "--nodes",
    type=int,
    metavar="N",
    help="The most machines that will ever get this token with the right to vote.  "
    "[default: 2 x control plane - 1; for a control plane of 1 it must be given]",
)
@click.option(
    "--seed", "seeds", multiple=True, metavar="MULTIADDR", help="An address to ask first."
)
@_expires
@click.option("--qr", is_flag=True, help="Show it as a QR code, too (on stderr).")
def new(
    control_plane: int,
    nodes: int | None,
    seeds: tuple[str, ...],
    expires: str | None,
    *,
    qr: bool,
) -> None:
    """Print a token for a new network."""
    from meshd.config import encode_token, new_token

    last_day = _last_day(expires)
    try:
        made = new_token(
            control_plane=control_plane,
            nodes_max=nodes,
            seeds=seeds,
            random_bytes=os.urandom,
            expires=last_day,
        )
    except ConfigError as error:
        # Here the sizes stand on the command line, not in a file.
        raise UsageError(error.code, error.what, cause=error.cause, fix=error.fix) from None
    _print_token(encode_token(made), qr=qr)
    assert made.bounds is not None
    _hint(
        f"network {made.network.network_id}: up to {made.bounds.nodes_max} machines may vote, "
        f"{made.bounds.quorum} must see one another to start. It is a secret: whoever has it owns "
        f"the cluster. Put it under p2p.network_token on every machine.{_until(last_day)}"
    )


@token.command(short_help="Print a token for machines that never vote.")
@click.option(
    "--config", "paths", metavar="PATH", multiple=True, type=click.Path(path_type=Path),
    help="Cloud-config file or folder; replaces the default folders.",
)  # fmt: skip
@_expires
@click.option("--qr", is_flag=True, help="Show it as a QR code, too (on stderr).")
def join(paths: tuple[Path, ...], expires: str | None, *, qr: bool) -> None:
    """Print a token for machines that join this network later and never vote."""
    from meshd.config import encode_token
    from meshd.config.load import load_join_token

    last_day = _last_day(expires)
    made = load_join_token(paths or None, os.environ, last_day)
    _print_token(encode_token(made), qr=qr)
    _hint(
        f"network {made.network.network_id}: machines with this token join, and never vote."
        f"{_until(last_day)}"
    )


@token.command()
@click.argument("file", required=False, metavar="[FILE|-]")
@output_option("table", "json", "yaml")
def inspect(file: str | None, output: str) -> None:
    """Say what a token means, never its secret. Without FILE: MESHD_TOKEN_FILE, else stdin."""
    from meshd.config import parse_token

    content = _described(parse_token(given_token(file or os.environ.get("MESHD_TOKEN_FILE", "-"))))
    if output != "table":
        print_object({"api_version": "meshd/v1", "kind": "Token", **content}, output)
        return
    content["expires"] = content["expires"] or "never"
    for name, value in content.items():
        shown = ", ".join(value) or "none" if isinstance(value, list) else value
        click.echo(f"{name.replace('_', ' '):<15}{'unknown' if shown is None else shown}")


def _described(read: Token) -> dict[str, object]:
    """Return what may be shown of a token."""
    network, bounds = read.network, read.bounds
    return {
        "network": network.network_id,
        "format": read.kind,
        "capability": network.capability,
        "key_epoch": network.epoch,
        "bound": "open" if bounds is None else bounds.bound,
        "control_plane": None if bounds is None else bounds.control_plane,
        "nodes_max": None if bounds is None else bounds.nodes_max,
        "quorum": None if bounds is None else bounds.quorum,
        "seeds": list(network.seeds),
        "expires": None if network.expires is None else str(network.expires),
    }


def _last_day(expires: str | None) -> date | None:
    from meshd.clock import read_moment
    from meshd.config import day_of, read_expiry

    return None if expires is None else read_expiry(expires, day_of(read_moment().wall_ms))


def _until(last_day: date | None) -> str:
    if last_day is None:
        return ""
    return f" After {last_day} (UTC) no new machine starts to join with it."


def given_token(file: str) -> str:
    """Return the text of a token file, of stdin, or of a cloud-config's p2p.network_token.

    Raises:
        UsageError: the token itself stands on the command line.
        ConfigError: the file cannot be read.
    """
    if file.lower().startswith("meshd1") or len(file) > 200:
        raise UsageError(
            "MESH-7017",
            "a token does not belong on the command line, where everybody can read it",
            fix="give a file, or pipe it in: `meshd token inspect -`",
        )
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(
            "MESH-1025", f"{file} cannot be read: {why}", fix="name a file that holds a token"
        ) from None
    if not text.lstrip().startswith("#"):
        return text
    from meshd.config.load import token_text_in

    return token_text_in(text, Path("stdin" if file == "-" else file))


def _print_token(text: str, *, qr: bool) -> None:
    click.echo(text)
    if qr:
        import segno

        # Capital letters fit QR's alphanumeric mode, and the token reads the same.
        sys.stdout.flush()
        code = segno.make(text.upper(), error="m", boost_error=False, micro=False)
        code.terminal(out=sys.stderr, compact=True)


def _hint(text: str) -> None:
    click.echo(text, err=True)
