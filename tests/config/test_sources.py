"""Which files count, in which order, and how they are laid over one another."""

from pathlib import Path

import pytest

from meshd.config.sources import read_sources
from meshd.config.tree import plain
from meshd.errors import ConfigError


def write(path: Path, text: str, header: str = "#cloud-config\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + text)
    return path


def merged(*texts: str, folder: Path) -> object:
    paths = [write(folder / f"{number}.yaml", text) for number, text in enumerate(texts)]
    return plain(read_sources(paths).content)


@pytest.mark.parametrize(
    ("older", "newer", "result"),
    [
        ("a: 1", "a: 2", {"a": 2}),
        ("a: {b: 1, c: 2}", "a: {b: 3}", {"a": {"b": 3, "c": 2}}),
        ("a: [x, y]", "a: [y, z]", {"a": ["x", "y", "z"]}),
        ("a: [{b: 1}]", "a: [{b: 1}]", {"a": [{"b": 1}, {"b": 1}]}),
        ("a: 1", "a: ~", {"a": None}),
        ("a: ~", "a: [1]", {"a": [1]}),
        ("a: 1", "a: text", {"a": "text"}),
        ("a: 1", "", {"a": 1}),
    ],
)
def test_files_are_merged_by_kairos_rules(
    tmp_path: Path, older: str, newer: str, result: object
) -> None:
    assert merged(older, newer, folder=tmp_path) == result


def test_values_of_different_kinds_are_refused_with_both_places(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        merged("p:\n  a: [1]", "p:\n  a: 1", folder=tmp_path)
    assert caught.value.what == (
        f"{tmp_path}/1.yaml:3:6: p.a is the value '1', but a list at {tmp_path}/0.yaml:3"
    )


def test_folders_are_walked_in_lexical_order_and_later_files_win(tmp_path: Path) -> None:
    write(tmp_path / "90_last.yaml", "a: last")
    write(tmp_path / "10_first.yml", "a: first")
    write(tmp_path / "50" / "inner.yaml", "a: inner\nb: 1")
    write(tmp_path / "99_not.txt", "a: never")
    sources = read_sources([tmp_path])
    assert plain(sources.content) == {"a": "last", "b": 1}
    assert [path.name for path in sources.files] == ["10_first.yml", "inner.yaml", "90_last.yaml"]


def test_paths_are_merged_in_the_order_given(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.yaml", "a: 1"), write(tmp_path / "2.yaml", "a: 2")
    assert plain(read_sources([two, one]).content) == {"a": 1}


def test_without_the_header_a_file_in_a_folder_is_skipped_and_said_so(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "a: 1", header="")
    sources = read_sources([tmp_path])
    assert sources.files == ()
    assert [finding.message for finding in sources.findings] == [
        "skipped: no line #cloud-config at its beginning"
    ]


@pytest.mark.parametrize("header", ["#cloud-config", "\n\n#cloud-config  ", "#node-config"])
def test_the_header_may_stand_in_the_first_ten_lines(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "a.yaml", "a: 1", header=header + "\n")
    assert plain(read_sources([path]).content) == {"a": 1}


def test_a_named_file_without_the_header_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "a: 1", header="")
    with pytest.raises(ConfigError, match="is not a cloud-config"):
        read_sources([path])


def test_a_named_path_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_sources([tmp_path / "nowhere"])


def test_a_file_above_a_megabyte_is_skipped(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "#" * 1_000_001)
    assert [finding.message for finding in read_sources([tmp_path]).findings] == [
        "skipped: it is larger than 1 MB"
    ]


def test_what_is_not_text_or_no_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"#cloud-config\n\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        read_sources([path])
    with pytest.raises(ConfigError, match=r"a\.yaml:2:1: a cloud-config is a mapping"):
        read_sources([write(path, "- a")])


def test_only_the_first_document_of_a_file_is_read_and_said_so(tmp_path: Path) -> None:
    sources = read_sources([write(tmp_path / "a.yaml", "a: 1\n---\na: 2\n")])
    assert plain(sources.content) == {"a": 1}
    assert "only the first" in sources.findings[0].message
