"""`meshd explain`: why things are as they are, and what an error code means."""

from __future__ import annotations

import re

import click

from meshd.cli.meanings import meanings
from meshd.errors import UsageError

_CODE = re.compile(r"(?:MESH-)?(\d{4})", re.IGNORECASE)


@click.command()
@click.argument("what", metavar="MESH-nnnn|codes")
def explain(what: str) -> None:
    """Explain an error code, or list them all. No daemon is needed."""
    code = _CODE.fullmatch(what)
    if code is not None:
        click.echo(meaning_of(f"MESH-{code[1]}"))
    elif what == "codes":
        for meaning in meanings().values():
            click.echo(f"{meaning.code}  {meaning.title}")
    else:
        raise UsageError("MESH-7018", f"{what!r} is no error code", fix="write it as MESH-3102")


def meaning_of(code: str) -> str:
    """Return the text about `code`.

    Raises:
        UsageError: there is no such code.
    """
    known = meanings()
    if code not in known:
        raise UsageError(
            "MESH-7018",
            f"no error has the code {code}",
            cause="it is mistyped, or of another version of meshd",
            fix="`meshd explain codes` lists all of them",
        )
    return known[code].render()
