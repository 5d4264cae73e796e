"""`meshd ledger list` and `get`: who wrote what, and whether the signature holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshd.cli.client import Client, resolve_node
from meshd.cli.complete import complete_nodes
from meshd.cli.output import cell, output_option, print_object, run_dir_option, span, table
from meshd.errors import MeshdError

if TYPE_CHECKING:
    from meshd.cli.client import Json


@click.group()
def ledger() -> None:
    """Read the replicated ledger."""


@ledger.command("list")
@click.option(
    "--author", metavar="NODE", shell_complete=complete_nodes, help="Only entries of this node."
)
@click.option("--key", "prefix", metavar="PREFIX", help="Only keys that begin with this.")
@output_option("table", "wide", "json", "yaml")
@run_dir_option
def list_entries(author: str | None, prefix: str | None, output: str, run_dir: Path) -> None:
    """List entries with author, sequence, age and signature state."""
    client = Client(run_dir)
    if author is not None:
        author = resolve_node(client.get("/v1/status"), author)["id"]
    content = client.get("/v1/ledger", author=author, prefix=prefix)
    if output in {"table", "wide"}:
        click.echo(entries_table(content["entries"], wide=output == "wide"))
    else:
        print_object(content, output)


@ledger.command()
@click.argument("key")
@output_option("table", "json", "yaml")
@run_dir_option
def get(key: str, output: str, run_dir: Path) -> None:
    """Show the entries of one key, values included."""
    content = Client(run_dir).get("/v1/ledger/get", key=key)
    if not content["entries"]:
        raise MeshdError(
            "MESH-7015",
            f"the ledger holds nothing under {key!r}",
            fix="`meshd ledger list` shows the keys",
        )
    if output != "table":
        print_object(content, output)
        return
    for entry in content["entries"]:
        click.echo(
            f"# {cell(entry['key'])} by {cell(entry['name'])} ({cell(entry['author'])}), "
            f"sequence {entry['seq']}, age {_age(entry)}, "
            f"signature {cell(entry['signature'])}"
        )
        click.echo(json.dumps(entry["value"], indent=2))


def entries_table(entries: list[Json], *, wide: bool) -> str:
    """Return entries as lines, sorted by key and author."""
    head = ["KEY", "AUTHOR", "SEQ", "AGE", "SIZE", "SIGNATURE"] + (["ID"] if wide else [])
    rows = []
    for entry in sorted(entries, key=lambda entry: (entry["key"], entry["author"])):
        row = [_short(entry["key"], wide=wide), entry["name"], entry["seq"], _age(entry)]
        row += [entry["size"], entry["signature"]]
        rows.append([*row, entry["author"]] if wide else row)
    return table(head, rows)


def _age(entry: Json) -> str:
    """Return how old an entry is; a stamp in the future (a clock is wrong) tells nothing."""
    return "-" if entry["age_s"] is None else span(entry["age_s"])


def _short(key: str, *, wide: bool) -> str:
    """Return a key with node ids cut to their last 8 characters, which tell them apart."""
    parts = key.split("/")
    return key if wide else "/".join(_cut(part) for part in parts)


def _cut(part: str) -> str:
    return f"…{part[-8:]}" if len(part) > 40 else part
