"""`meshd explain`: why things are as they are, and what an error code means."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshd.cli.client import Client
from meshd.cli.complete import complete_nodes
from meshd.cli.meanings import meanings
from meshd.cli.output import cell, output_option, print_object, run_dir_option
from meshd.errors import UsageError

if TYPE_CHECKING:
    from meshd.cli.client import Json

TOPICS = ("role", "genesis", "join", "vip")
_CODE = re.compile(r"(?:MESH-)?(\d{4})", re.IGNORECASE)
_WIDTH_MIN, _WIDTH_MAX = 60, 120


def complete_what(
    ctx: click.Context,  # noqa: ARG001 - click's signature.
    param: click.Parameter,  # noqa: ARG001
    incomplete: str,
) -> list[str]:
    """Return what can be explained; codes only once one is begun, because there are many."""
    words = [*TOPICS, "codes", *(meanings() if incomplete[:1] in {"M", "m"} else ())]
    return [
        word
        for word in words
        if word.startswith(incomplete.upper() if word[0] == "M" else incomplete)
    ]


@click.command()
@click.argument(
    "what", metavar="role|genesis|join|vip|MESH-nnnn|codes", shell_complete=complete_what
)
@click.argument("node", required=False, shell_complete=complete_nodes)
@output_option("text", "json", "yaml")
@run_dir_option
def explain(what: str, node: str | None, output: str, run_dir: Path) -> None:
    """Say why, in numbered causes, for this node or NODE; `!` marks what is not done.

    \b
    role     why a node is control plane, worker, or nothing
    genesis  who proposed, who signed, who has not, and what that waits for
    join     how far a node has come, and what stops it
    vip      who holds the virtual address, how that is known, what would move it

    MESH-nnnn explains an error code, and codes lists them all: no daemon is needed for that.
    """
    code = _CODE.fullmatch(what)
    if what in TOPICS:
        print_explanation(Client(run_dir).get(f"/v1/explain/{what}", node=node), output)
    elif node is not None or output != "text":
        raise _nothing_of(what, "an error code takes neither a node nor -o" if code else None)
    elif code is not None:
        click.echo(meaning_of(f"MESH-{code[1]}"))
    elif what == "codes":
        for meaning in meanings().values():
            click.echo(f"{meaning.code}  {meaning.title}")
    else:
        raise _nothing_of(what, None)


def print_explanation(content: Json, output: str) -> None:
    """Print an Explanation object."""
    if output == "text":
        click.echo(shown(content, _width()))
    else:
        print_object(content, output)


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


def _nothing_of(what: str, cause: str | None) -> UsageError:
    return UsageError(
        "MESH-7018",
        f"{what!r} cannot be explained" + (" so" if cause else ""),
        cause=cause,
        fix=f"ask for {', '.join(TOPICS)}, or a code such as MESH-3102",
    )


def shown(content: Json, width: int) -> str:
    """Return an explanation as text: the answer, numbered causes with evidence, what changes it."""
    lines = [f"{cell(content['node']['name'])}: {cell(content['answer'])}, because"]
    causes = content["causes"]
    subjects = max((len(str(cause["subject"])) for cause in causes), default=0)
    for number, cause in enumerate(causes, start=1):
        lines += _cause(number, cause, subjects, width)
    if content["waiting_for"]:
        lines += _wrapped("waiting for: ", cell(content["waiting_for"]), width)
    for change in content["would_change_if"]:
        lines += _wrapped("would change if: ", cell(change), width)
    return "\n".join(lines)


def _cause(number: int, cause: Json, subjects: int, width: int) -> list[str]:
    mark = "!" if cause["fulfilled"] is False else " "
    head = f"{mark}{number:>2}. {cell(cause['subject']):<{subjects}}  "
    lines = _wrapped(head, cell(cause["text"]), width)
    indent = " " * len(head)
    lines += [
        f"{indent}{cell(one['place'])}: {cell(one['key'])}: {cell(one['value'])}"
        for one in cause["settings"]
    ]
    record = cause["record"]
    if record is not None:
        signers = ", ".join(map(cell, record["signers"]))
        text = f"ballot {record['round']} of {cell(record['proposer'])}, signed by {signers}"
        lines += _wrapped(f"{indent}record {cell(record['key'])}: ", text, width)
    lines += [
        f"{indent}entry {cell(_short(one['key']))} by {cell(one['author'])}, seq {one['seq']}"
        for one in cause["entries"]
    ]
    return lines


def _short(key: str) -> str:
    """Return a key with node ids cut to their last 8 characters, which tell them apart."""
    return "/".join(f"…{part[-8:]}" if len(part) > 40 else part for part in key.split("/"))


def _wrapped(head: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width=max(width, len(head) + 20),
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _width() -> int:
    """Return how wide to write: as the terminal is; for files and pipes always the same."""
    if not sys.stdout.isatty():
        return _WIDTH_MAX
    return min(max(shutil.get_terminal_size().columns, _WIDTH_MIN), _WIDTH_MAX)
