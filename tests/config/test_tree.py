"""YAML with places, by YAML 1.2's rules."""

from pathlib import Path

import pytest

from meshd.config.schema import Origin
from meshd.config.tree import Document, Sequence, Table, parse_yaml, plain

FILE = Path("f.yaml")


def parsed(text: str) -> object:
    document = parse_yaml(text, FILE)
    assert document.errors == ()
    assert document.tree is not None
    return plain(document.tree)


def refusal(text: str) -> str:
    (found,) = parse_yaml(text, FILE).errors
    assert found.code == "MESH-1020"
    return found.located


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("on", "on"),
        ("yes", "yes"),
        ("NO", "NO"),
        ("", None),
        ("~", None),
        ("'true'", "true"),
        ('"12"', "12"),
        ("12", 12),
        ("-7", -7),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.5", 1.5),
        ("12:30:45", "12:30:45"),  # YAML 1.1 would make it a number of seconds.
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
    ],
)
def test_plain_values_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    assert parsed(f"a: {text}") == {"a": value}


def test_every_value_and_key_knows_its_place() -> None:
    document = parse_yaml("# comment\na:\n  - b\n  - c: d\n", FILE)
    tree = document.tree
    assert isinstance(tree, Table)
    assert not document.more
    assert tree.origins["a"] == Origin(path=FILE, line=2, column=1)
    assert tree.entries["a"].origin == Origin(path=FILE, line=3, column=3)


def test_anchors_and_merge_keys_work() -> None:
    assert parsed("a: &x {b: 1, c: 2}\nd: *x\ne: {<<: *x, b: 3}\nf: {<<: [*x, {g: 4}]}") == {
        "a": {"b": 1, "c": 2},
        "d": {"b": 1, "c": 2},
        "e": {"b": 3, "c": 2},
        "f": {"b": 1, "c": 2, "g": 4},
    }


def test_an_anchor_that_explodes_is_read_without_growing() -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    tree = parse_yaml("\n".join(lines), FILE).tree
    assert isinstance(tree, Table)
    assert len(tree.entries) == 60


def test_further_documents_are_noticed() -> None:
    assert parse_yaml("a: 1\n---\nb: 2\n", FILE).more


def test_an_empty_file_is_no_tree() -> None:
    assert parse_yaml("# nothing\n", FILE) == Document(tree=None)


def test_damage_is_named_with_line_and_column() -> None:
    assert refusal("a: 1\na: 2") == "f.yaml:2:1: the key 'a' stands twice; first on line 1"
    assert refusal("a:\n\t- b").startswith("f.yaml:2:1: a tab")
    assert refusal("&a [*a]") == "f.yaml:1:1: an anchor that contains itself"
    assert refusal("{a: 1}: 2") == "f.yaml:1:1: a key that is not text"
    assert refusal("a: {<<: 1}") == "f.yaml:1:5: `<<` needs a mapping"
    assert refusal("a: \x01").startswith("f.yaml:1:1: unacceptable character")
    assert refusal("[" * 1500) == "f.yaml:1:1: nested too deeply"


@pytest.mark.parametrize(
    ("text", "value"),
    [("!!str 12", "12"), ("!!str true", "true"), ("|\n  12\n", "12\n")],
)
def test_what_is_marked_as_text_is_text(text: str, value: str) -> None:
    assert parsed(f"a: {text}") == {"a": value}


@pytest.mark.parametrize(
    ("text", "place", "what", "fix"),
    [
        ("a:\n\tb: 1", "2:1", "a tab", "indent with spaces"),
        ("a: 1\n  b: 2", "2:4", "a `:` where no key may stand", "check the indentation"),
        ("a: b: c", "1:5", "a `:` where no key may stand", "quote a value that contains `: `"),
        ("a:\n  - b\n c: 1", "3:2", "wrong indentation", "like its neighbours"),
        ('a: "b\nc: 1\n', "1:4", "a quotation mark that is never closed", "close it"),
        ("a: [b, c\nd: 1", "2:2", "expected ',' or ']'", "close the bracket"),
        ("a: 1\nb\nc: 1", "2:1", "a key without `:`", "KEY: VALUE"),
        ("a: *b", "1:4", "found undefined alias", "quote the value"),
    ],
)
def test_a_syntax_error_says_what_was_likely_done_and_what_would_do(
    text: str, place: str, what: str, fix: str
) -> None:
    (found,) = parse_yaml(text, FILE).errors
    assert found.located.startswith(f"f.yaml:{place}: {what}")
    assert fix in found.fix


def test_several_errors_of_one_text_are_found_at_once() -> None:
    found = parse_yaml("a: 1\na: 2\nb: {<<: 1}\n[c]: 1\nb: 3", FILE).errors
    assert [str(error.origin) for error in found] == [f"f.yaml:{line}" for line in (2, 3, 4, 5)]


def test_a_value_from_elsewhere_has_the_one_origin_it_was_given() -> None:
    origin = Origin(name="environment X")
    tree = parse_yaml("[a, {b: c}]", origin).tree
    assert isinstance(tree, Sequence)
    assert {item.origin.place for item in (tree, *tree.items)} == {"environment X"}
