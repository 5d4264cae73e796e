"""Which files count, in which order, and how they are laid over one another.

The rules are those of Kairos' collector (kairos-io/kairos-sdk, collector/collector.go), one test
each; where ours differ the test says so.
"""

import os
from pathlib import Path

import pytest

from meshd.config.sources import DEFAULT_FOLDERS, Sources, read_sources
from meshd.config.tree import plain


def write(path: Path, text: str, header: str = "#cloud-config\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + text)
    return path


def read(*texts: str, folder: Path) -> Sources:
    return read_sources(
        [write(folder / f"{number}.yaml", text) for number, text in enumerate(texts)]
    )


def merged(*texts: str, folder: Path) -> object:
    sources = read(*texts, folder=folder)
    assert sources.errors == []
    return plain(sources.content)


def refusals(sources: Sources) -> list[str]:
    return [f"{error.located} -> {error.fix}" for error in sources.errors]


# How two files become one.


@pytest.mark.parametrize(
    ("older", "newer", "result"),
    [
        ("a: 1", "a: 2", {"a": 2}),
        ("a: x", "a: y", {"a": "y"}),
        ("a: true", "a: false", {"a": False}),
        ("a: 1", "a: 2.0", {"a": 2.0}),
        ("a: x", "b: y", {"a": "x", "b": "y"}),
        ("a: 1", "", {"a": 1}),
        ("", "a: 1", {"a": 1}),
    ],
)
def test_a_later_single_value_replaces_an_earlier_one(
    tmp_path: Path, older: str, newer: str, result: object
) -> None:
    assert merged(older, newer, folder=tmp_path) == result


def test_maps_are_merged_at_every_depth(tmp_path: Path) -> None:
    older, newer = "a: {b: {c: 1, d: 2}, e: 3}", "a: {b: {c: 9}, f: 4}"
    assert merged(older, newer, folder=tmp_path) == {"a": {"b": {"c": 9, "d": 2}, "e": 3, "f": 4}}


def test_lists_of_maps_are_joined_even_where_items_are_equal(tmp_path: Path) -> None:
    assert merged("a: [{b: 1}]", "a: [{b: 1}, {c: 2}]", folder=tmp_path) == {
        "a": [{"b": 1}, {"b": 1}, {"c": 2}]
    }


@pytest.mark.parametrize(
    ("older", "newer", "result"),
    [
        ("[x, y]", "[y, z]", ["x", "y", "z"]),
        ("[x, x]", "[z, z]", ["x", "x", "z"]),  # Only what is added is without repetition.
        ("[]", "[z, z]", ["z", "z"]),  # Nothing is united with an empty list.
        ("[1]", "['1', 1.5, true, 1]", [1, "1", 1.5, True]),  # Four different values.
        ("[1]", "[1.0]", [1]),  # Go writes 1.0 as 1.
        ("[x]", "[{b: 1}, x]", ["x", {"b": 1}]),  # The older list's first item decides.
        ("[{b: 1}]", "[x, x]", [{"b": 1}, "x", "x"]),
    ],
)
def test_lists_of_values_are_united(
    tmp_path: Path, older: str, newer: str, result: list[object]
) -> None:
    found = merged(f"a: {older}", f"a: {newer}", folder=tmp_path)
    assert found == {"a": result}
    assert isinstance(found, dict)
    assert list(map(type, found["a"])) == list(map(type, result))


@pytest.mark.parametrize(
    ("older", "empty"),
    [("7", 0), ("1.5", 0.0), ("text", ""), ("true", False), ("[x]", []), ("{b: 1}", {})],
)
def test_null_resets_a_value_to_the_empty_one_of_its_kind(
    tmp_path: Path, older: str, empty: object
) -> None:
    found = merged(f"a: {older}", "a: null", folder=tmp_path)
    assert found == {"a": empty}
    assert isinstance(found, dict)
    assert type(found["a"]) is type(empty)


def test_what_was_null_takes_any_value(tmp_path: Path) -> None:
    assert merged("a: ~\nb:", "a: [1]\nb: {c: 1}", folder=tmp_path) == {"a": [1], "b": {"c": 1}}
    assert merged("a: ~", "a: ~", folder=tmp_path) == {"a": None}


@pytest.mark.parametrize(
    ("older", "newer", "says"),
    [
        ("[1]", "1", "p.a is a number (1) here, but a list at"),
        ("{b: 1}", "[b]", "p.a is a list here, but a map at"),
        ("secret", "[b]", "p.a is a list here, but text at"),
        ("1", "secret", "p.a is text here, but a number (1) at"),
        ("1", "1.5", "p.a is a fraction (1.5) here, but a number (1) at"),
        ("yes", "true", "p.a is true or false (true) here, but text at"),
    ],
)
def test_values_of_unlike_kinds_are_refused_with_both_places(
    tmp_path: Path, older: str, newer: str, says: str
) -> None:
    sources = read(f"p:\n  a: {older}", f"p:\n  a: {newer}\n  b: 2", folder=tmp_path)
    (error,) = sources.errors
    assert error.located == f"{tmp_path}/1.yaml:3:6: {says} {tmp_path}/0.yaml:3"
    assert "secret" not in error.located
    # The rest of the file counts, so that all errors are found at once.
    kept = merged(f"p:\n  a: {older}\n  b: 2", folder=tmp_path / "kept")
    assert plain(sources.content) == kept


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    assert refusals(read("a: 1\nb: 2\na: 3", folder=tmp_path)) == [
        (
            f"{tmp_path}/0.yaml:4:1: the key 'a' stands twice; first on line 2 "
            "-> merge the two, or remove one"
        )
    ]


# Which files.


def test_folders_are_walked_in_lexical_order_and_later_files_win(tmp_path: Path) -> None:
    write(tmp_path / "90_last.yaml", "a: last")
    write(tmp_path / "10_first.yml", "a: first")
    write(tmp_path / "50" / "inner.yaml", "a: inner\nb: 1")
    write(tmp_path / "50-after-the-folder.yaml", "b: 2")
    write(tmp_path / "99_not.txt", "a: never")
    write(tmp_path / "99_not.YAML", "a: never")
    write(tmp_path / ".yaml", "c: 3")
    sources = read_sources([tmp_path])
    assert plain(sources.content) == {"a": "last", "b": 2, "c": 3}
    assert [path.name for path in sources.files] == [
        ".yaml", "10_first.yml", "inner.yaml", "50-after-the-folder.yaml", "90_last.yaml",
    ]  # fmt: skip


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    file = write(tmp_path / "elsewhere" / "one.yaml", "a: 1")
    folder.mkdir()
    (folder / "file.yaml").symlink_to(file)
    (folder / "loop").symlink_to(folder)
    (folder / "other").symlink_to(file.parent)
    assert read_sources([folder]).files == [folder / "file.yaml"]


def test_paths_are_merged_in_the_order_given(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.yaml", "a: 1"), write(tmp_path / "2.yaml", "a: 2")
    assert plain(read_sources([two, one]).content) == {"a": 1}


def test_by_default_kairos_folders_are_read_and_meshds_wins() -> None:
    assert [str(folder) for folder in DEFAULT_FOLDERS] == [
        "/system/oem", "/etc/kairos", "/usr/local/cloud-config", "/oem", "/etc/meshd/config.d",
    ]  # fmt: skip


def test_without_the_header_a_file_in_a_folder_is_skipped_and_said_so(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "a: 1", header="")
    sources = read_sources([tmp_path])
    assert sources.files == []
    assert sources.errors == []
    assert [finding.message for finding in sources.findings] == [
        "skipped: no line #cloud-config in its first 10 lines"
    ]


@pytest.mark.parametrize(
    "header",
    [
        *("#cloud-config", "#kairos-config", "#node-config", "#cloud-config \t"),
        "\n" * 9 + "#cloud-config",
    ],
)
def test_the_header_may_stand_in_the_first_ten_lines(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "a.yaml", "a: 1", header=header + "\n")
    assert plain(read_sources([path]).content) == {"a": 1}


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        ("\n" * 10 + "#cloud-config\n", ""),
        (" #cloud-config\n", " (there is ' #cloud-config')"),
        ("# cloud-config\n", " (there is '# cloud-config')"),
        ("#Cloud-Config\n", " (there is '#Cloud-Config')"),
        ("#cloud_config\n", " (there is '#cloud_config')"),
        ("#cloud-config x\n", " (there is '#cloud-config x')"),
    ],
)
def test_a_named_file_without_the_header_is_refused(tmp_path: Path, header: str, hint: str) -> None:
    path = write(tmp_path / "a.yaml", "a: 1", header=header)
    assert refusals(read_sources([path])) == [
        (
            f"{path}:1:1: this is not a cloud-config: no line #cloud-config in its first 10 lines"
            f"{hint} -> make `#cloud-config` its first line"
        )
    ]


def test_a_byte_order_mark_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbf#cloud-config\na: 1\n")
    (message,) = refusals(read_sources([path]))
    assert "begins with a byte order mark" in message


def test_a_named_path_that_is_absent_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    one = write(tmp_path / "1.yaml", "a: 1")
    sources = read_sources([tmp_path / "nowhere", one])
    assert plain(sources.content) == {"a": 1}
    assert refusals(sources) == [
        f"{tmp_path}/nowhere:1:1: there is no such file or folder -> name one that exists"
    ]


def test_a_file_above_a_megabyte_is_skipped_in_a_folder_and_refused_by_name(tmp_path: Path) -> None:
    fits = write(tmp_path / "b.yaml", "a: 1\n" + "#" * (1_000_000 - 19))
    assert fits.stat().st_size == 1_000_000
    path = write(tmp_path / "a.yaml", "#" * 1_000_001)
    sources = read_sources([tmp_path])
    assert sources.files == [fits]
    assert [finding.message for finding in sources.findings] == ["skipped: it is larger than 1 MB"]
    (message,) = refusals(read_sources([path]))
    assert "it is larger than 1 MB" in message


def test_what_is_not_text_or_no_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"#cloud-config\na: 1\nb: \xff\xfe")
    assert refusals(read_sources([path])) == [
        f"{path}:3:1: not UTF-8 text -> save the file as UTF-8"
    ]
    (message,) = refusals(read_sources([write(path, "- a")]))
    assert message.startswith(f"{path}:2:1: a cloud-config is a mapping")


def test_a_file_that_cannot_be_read_is_an_error_where_kairos_skips_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to(tmp_path / "gone")
    (message,) = refusals(read_sources([tmp_path]))
    assert message.startswith(f"{tmp_path}/a.yaml:1:1: this cannot be read: {os.strerror(2)}")


def test_a_path_that_cannot_be_looked_at_is_an_error(tmp_path: Path) -> None:
    (message,) = refusals(read_sources([tmp_path / ("x" * 300)]))
    assert f"this cannot be read: {os.strerror(36)}" in message


def test_only_the_first_document_of_a_file_is_read_and_said_so(tmp_path: Path) -> None:
    sources = read_sources([write(tmp_path / "a.yaml", "a: 1\n---\na: 2\n")])
    assert plain(sources.content) == {"a": 1}
    assert "only the first" in sources.findings[0].message


def test_an_error_in_one_file_hides_no_error_in_another(tmp_path: Path) -> None:
    sources = read("a: [", "b: 1\nb: 2\nc: 1\nc: 2", "a: 1", folder=tmp_path)
    assert [(error.origin and str(error.origin)) for error in sources.errors] == [
        f"{tmp_path}/0.yaml:2", f"{tmp_path}/1.yaml:3", f"{tmp_path}/1.yaml:5",
    ]  # fmt: skip
    assert plain(sources.content) == {"a": 1, "b": 1, "c": 1}
