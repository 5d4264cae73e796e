"""Which files make the configuration, and their merged content.

Folders are walked as Kairos walks them: `*.yaml` and `*.yml`, in lexical order, below each folder
in turn; a later file wins. A file counts only with `#cloud-config` in its first ten lines. What
Kairos skips with a warning - a file that cannot be read or is not YAML - is an error here: it
might have said how large the cluster is.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from meshd.config.merge import merge
from meshd.config.schema import Finding, Origin
from meshd.config.tree import Table, parse_yaml, syntax_error

DEFAULT_FOLDERS = (
    Path("/system/oem"),
    Path("/etc/kairos"),
    Path("/usr/local/cloud-config"),
    Path("/oem"),
    Path("/etc/meshd/config.d"),
)
STDIN = Path("-")
FILE_SIZE_MAX_BYTES = 1_000_000
HEADERS = ("#cloud-config", "#kairos-config", "#node-config")
_HEADER_LINES = 10
_SUFFIXES = (".yaml", ".yml")
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(slots=True, kw_only=True)
class Sources:
    """What was read: the merged content, the sources in the order of merging, what was wrong."""

    content: Table = field(default_factory=lambda: empty_table(Origin(name="nothing")))
    files: list[Path] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # Kernel command line, variables.
    errors: list[Finding] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        """Return every source that said something, weakest first."""
        return (*map(_shown, self.files), *self.others)

    def lay_over(self, table: Table) -> None:
        """Merge `table` over what was read so far."""
        merged = merge(self.content, table, self.errors)
        assert isinstance(merged, Table)
        self.content = merged


def empty_table(origin: Origin) -> Table:
    """Return a mapping without keys."""
    return Table(entries={}, origins={}, origin=origin)


def read_sources(paths: Sequence[Path] | None) -> Sources:
    """Read and merge `paths` (files, folders, `-`), or Kairos' and meshd's folders if None.

    Whatever is wrong is in the result's `errors`; the rest was read nevertheless.
    """
    sources = Sources()
    for path, named in _files(paths, sources.errors):
        table = _read_file(path, sources, named=named)
        if table is not None:
            sources.files.append(path)
            sources.lay_over(table)
    return sources


def read_text(text: str, path: Path) -> Sources:
    """Return sources of one cloud-config that is no file yet; `path` is named in errors."""
    sources = Sources()
    table = _table_of(text.encode(), path, sources, named=True)
    if table is not None:
        sources.files.append(path)
        sources.lay_over(table)
    return sources


def _files(paths: Sequence[Path] | None, errors: list[Finding]) -> Iterator[tuple[Path, bool]]:
    """Yield each file, and whether it was named itself."""
    if paths is None:
        for folder in DEFAULT_FOLDERS:
            if folder.is_dir():
                yield from ((path, False) for path in _walk(folder, errors))
        return
    for path in paths:
        try:
            is_folder = path != STDIN and stat.S_ISDIR(path.stat().st_mode)
        except FileNotFoundError:
            errors.append(
                _unusable(path, "there is no such file or folder", "name one that exists")
            )
        except OSError as error:
            errors.append(_unreadable(path, error))
        else:
            if is_folder:
                yield from ((below, False) for below in _walk(path, errors))
            else:
                yield path, True


def _walk(folder: Path, errors: list[Finding]) -> Iterator[Path]:
    """Yield the YAML files below `folder` in lexical order; links to folders are not followed."""
    try:
        entries = sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))
    except OSError as error:
        errors.append(_unreadable(folder, error))
        return
    for path in entries:
        if os.path.isdir(path):  # noqa: PTH112 - Never raises: what it cannot tell is read below.
            if not path.is_symlink():
                yield from _walk(path, errors)
        elif path.name.endswith(_SUFFIXES):
            yield path


def _read_file(path: Path, sources: Sources, *, named: bool) -> Table | None:
    try:
        content = sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
    except OSError as error:
        sources.errors.append(_unreadable(path, error))
        return None
    return _table_of(content, Path(_shown(path)), sources, named=named)


def _table_of(content: bytes, path: Path, sources: Sources, *, named: bool) -> Table | None:
    origin = Origin(path=path, line=1)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        place = Origin(path=path, line=line)
        sources.errors.append(syntax_error(place, "not UTF-8 text", "save the file as UTF-8"))
        return None
    skip = _reason_to_skip(content, text)
    if skip is not None:
        why, fix = skip
        if named:
            sources.errors.append(_unusable(path, f"this is not a cloud-config: {why}", fix))
        else:
            sources.findings.append(
                Finding(code="MESH-1025", origin=origin, message=f"skipped: {why}", fix=fix)
            )
        return None
    document = parse_yaml(text, path)
    sources.errors += document.errors
    if document.more:
        sources.findings.append(
            Finding(
                code="MESH-1025",
                origin=origin,
                message="only the first of several YAML documents is read",
                fix="move what follows the second `---` to a file of its own",
            )
        )
    tree = document.tree
    if tree is None and not document.errors:
        return empty_table(origin)
    if tree is not None and not isinstance(tree, Table):
        sources.errors.append(
            syntax_error(
                tree.origin,
                "a cloud-config is a mapping at its top",
                "write KEY: VALUE lines, such as p2p: and its keys below it, indented",
            )
        )
        return None
    return tree


def _reason_to_skip(content: bytes, text: str) -> tuple[str, str] | None:
    """Return why a file is no cloud-config, and what would do; None if it is one."""
    if len(content) > FILE_SIZE_MAX_BYTES:
        return "it is larger than 1 MB", "split it, or move what is not configuration out of it"
    # Kairos splits at line feeds only, and forgives space at a line's end only.
    lines = [line.rstrip() for line in text.split("\n")[:_HEADER_LINES]]
    if any(line in HEADERS for line in lines):
        return None
    if text.startswith(_BYTE_ORDER_MARK):
        return "it begins with a byte order mark", "save it as UTF-8 without byte order mark"
    near = next((line for line in lines if _nearly_a_header(line)), None)
    found = "" if near is None else f" (there is {near!r})"
    return (
        f"no line {HEADERS[0]} in its first {_HEADER_LINES} lines{found}",
        f"make `{HEADERS[0]}` its first line",
    )


def _nearly_a_header(line: str) -> bool:
    squeezed = line.replace(" ", "").replace("_", "-").lower()
    return squeezed.startswith("#cloud") and len(line) < 40


def _shown(path: Path) -> str:
    return "stdin" if path == STDIN else str(path)


def _unreadable(path: Path, error: OSError) -> Finding:
    return _unusable(
        path, f"this cannot be read: {error.strerror}", "run as root, or correct its permissions"
    )


def _unusable(path: Path, why: str, fix: str) -> Finding:
    return Finding(code="MESH-1025", origin=Origin(path=path, line=1), message=why, fix=fix)
