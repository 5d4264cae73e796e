"""The JSON Schema accepts what meshd accepts and refuses what it refuses, as far as it can."""

import json
from pathlib import Path

import jsonschema
import pytest

from meshd.cli import main
from meshd.config.json_schema import json_schema
from meshd.config.keys import ALL
from meshd.config.tree import parse_yaml, plain
from tests.config.loading import TOKEN

SCHEMA = json_schema()
EXAMPLES = sorted((Path(__file__).parent / "kairos").iterdir())


def mistakes(text: str) -> list[str]:
    """Where the schema finds a mistake, as dotted paths."""
    validator = jsonschema.Draft202012Validator(SCHEMA)
    found = validator.iter_errors(parsed(text))
    return sorted(".".join(map(str, error.absolute_path)) for error in found)


def parsed(text: str) -> object:
    tree = parse_yaml(text, Path("x")).tree
    assert tree is not None
    return plain(tree)


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_kairos_examples_pass_but_for_the_misplaced_key(path: Path) -> None:
    wrong = ["p2p"] if path.stem == "ha-kubevip-misplaced" else []
    assert mistakes(path.read_text()) == wrong


def test_every_key_is_there_with_a_description() -> None:
    for key in ALL.values():
        schema = SCHEMA
        for name in key.path.split("."):
            schema = schema["properties"][name]
        assert schema["description"].startswith(key.about), key.path
        assert len(key.about) > 10, key.path
        assert key.about.endswith("."), key.path
        assert ("default" in schema) is (key.default is not None)


def test_every_default_is_one_that_its_own_reader_and_the_schema_accept() -> None:
    for key in ALL.values():
        if key.default is not None:
            tree = parse_yaml(json.dumps(key.default), Path("default")).tree
            assert tree is not None
            key.read(tree)
            content: object = key.default
            for name in reversed(key.path.split(".")):
                content = {name: content}
            jsonschema.Draft202012Validator(SCHEMA).validate(content)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("p2p: {role: mastr}", "p2p.role"),
        ("p2p: {rol: master}", "p2p"),
        ("p2p: {disable_dht: yes}", "p2p.disable_dht"),
        ("p2p: {minimum_nodes: '3'}", "p2p.minimum_nodes"),
        ("p2p: {auto: {ha: {master_nodes: 7}}}", "p2p.auto.ha.master_nodes"),
        ("p2p: {ha: {master_nodes: 2}}", "p2p"),
        ("p2p: text", "p2p"),
        ("p2p: {meshd: {seeds: [10.0.0.1]}}", "p2p.meshd.seeds.0"),
        ("p2p: {meshd: {discovery: [lan, wan]}}", "p2p.meshd.discovery.1"),
        ("p2p: {meshd: {repair_after: 10}}", "p2p.meshd.repair_after"),
        ("kubevip: {eip: vip.example.org}", "kubevip.eip"),
        ("kubevip: {interface: true}", "kubevip.interface"),
        ("kubevip: {leaseDuration: 0}", "kubevip.leaseDuration"),
        ("k3s: {args: --disable=traefik}", "k3s.args"),
        ("k3s: {env: [A]}", "k3s.env"),
    ],
)
def test_what_meshd_refuses_the_schema_refuses_at_the_same_key(text: str, place: str) -> None:
    assert mistakes(text) == [place]


@pytest.mark.parametrize(
    "text",
    [
        f"p2p: {{network_token: {TOKEN}, role: '', disable_dht: ~, network_id: 7}}",
        "p2p: {meshd: {repair_after: 1h30m, seeds: [/dns/a.example.org/tcp/7946]}}",
        "kubevip: {eip: fd00::50, interface: '', manifest_url: ''}",
        "k3s: {args: [--debug, 7], env: {A: 1, B: true, C: text}}",
        "hostname: x\nusers: []\nstages: {}",
    ],
)
def test_what_meshd_accepts_the_schema_accepts(text: str) -> None:
    assert mistakes(text) == []


def test_a_new_file_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "init", "-", "--vip", "10.0.0.50"]) == 0
    assert mistakes(capsys.readouterr().out) == []
