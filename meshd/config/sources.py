"""Which files make the configuration, and their merged content.

Folders are walked as Kairos walks them: `*.yaml` and `*.yml`, in lexical order, below each folder
in turn; a later file wins. A file counts only with `#cloud-config` in its first ten lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from meshd.config.merge import merge
from meshd.config.schema import Finding, Origin
from meshd.config.tree import Table, parse_yaml, syntax_error
from meshd.errors import ConfigError

DEFAULT_FOLDERS = (
    Path("/system/oem"),
    Path("/etc/kairos"),
    Path("/usr/local/cloud-config"),
    Path("/oem"),
    Path("/etc/meshd/config.d"),
)
FILE_SIZE_MAX_BYTES = 1_000_000
_HEADERS = frozenset({"#cloud-config", "#kairos-config", "#node-config"})
_HEADER_LINES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What was read: the merged content, the files in the order of merging, what was odd."""

    content: Table
    files: tuple[Path, ...]
    findings: tuple[Finding, ...]


def read_sources(paths: Sequence[Path] | None) -> Sources:
    """Read and merge `paths` (files or folders), or Kairos' and meshd's folders if None.

    Raises:
        ConfigError: a named path is absent or not a cloud-config, a file cannot be read or is not
            YAML, or two files cannot be merged.
    """
    content = Table(entries={}, origins={}, origin=Origin(path=Path("/"), line=1))
    files: list[Path] = []
    findings: list[Finding] = []
    for path, named in _files(paths):
        table = _read_file(path, findings, named=named)
        if table is not None:
            files.append(path)
            merged = merge(content, table)
            assert isinstance(merged, Table)
            content = merged
    return Sources(content=content, files=tuple(files), findings=tuple(findings))


def _files(paths: Sequence[Path] | None) -> Iterator[tuple[Path, bool]]:
    """Yield each file, and whether it was named itself."""
    if paths is None:
        for folder in DEFAULT_FOLDERS:
            yield from ((path, False) for path in _walk(folder) if folder.is_dir())
        return
    for path in paths:
        if path.is_dir():
            yield from ((below, False) for below in _walk(path))
        elif path.exists():
            yield path, True
        else:
            raise ConfigError(
                "MESH-1025",
                f"{path} does not exist",
                fix="name an existing file or folder with --config",
            )


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the YAML files below `folder` in lexical order; links to folders are not followed."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if not path.is_symlink():
                yield from _walk(path)
        elif path.suffix in {".yaml", ".yml"}:
            yield path


def _read_file(path: Path, findings: list[Finding], *, named: bool) -> Table | None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            "MESH-1025",
            f"{path} cannot be read: {error.strerror}",
            fix="run as root, or correct the file's permissions",
        ) from None
    origin = Origin(path=path, line=1)
    if len(content) > FILE_SIZE_MAX_BYTES:
        findings.append(_skipped(origin, "it is larger than 1 MB"))
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise syntax_error(origin, "not UTF-8 text") from None
    if not _has_header(text):
        if named:
            raise ConfigError(
                "MESH-1025",
                f"{path} is not a cloud-config: no line #cloud-config at its beginning",
                fix="make `#cloud-config` its first line",
            )
        findings.append(_skipped(origin, "no line #cloud-config at its beginning"))
        return None
    tree, more = parse_yaml(text, path)
    if more:
        findings.append(
            Finding(
                code="MESH-1025",
                origin=origin,
                message="only the first of several YAML documents is read",
                fix="move what follows the second `---` to a file of its own",
            )
        )
    if tree is not None and not isinstance(tree, Table):
        raise syntax_error(tree.origin, "a cloud-config is a mapping at its top")
    return tree


def _has_header(text: str) -> bool:
    return any(line.rstrip() in _HEADERS for line in text.splitlines()[:_HEADER_LINES])


def _skipped(origin: Origin, why: str) -> Finding:
    return Finding(
        code="MESH-1025",
        origin=origin,
        message=f"skipped: {why}",
        fix="correct the file, or move it out of the folder",
    )
