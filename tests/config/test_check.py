"""What stands at the top of a file: sections, near misses, keys whose section was forgotten."""

import pytest

from tests.config.loading import Load


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("KubeVIP", "kubevip"),
        ("kube-vip", "kubevip"),
        ("kubvip", "kubevip"),
        ("P2P", "p2p"),
        ("k3s_agent", "k3s-agent"),
        ("k3s-agents", "k3s-agent"),
    ],
)
def test_a_mistyped_section_is_a_warning_with_its_name(load: Load, name: str, near: str) -> None:
    findings = load.examine(f"p2p: {{network_token: TOKEN}}\n{name}: {{}}").findings
    assert f"{name} is not read; did you mean {near!r}?" in {item.message for item in findings}


def test_sections_of_other_readers_are_no_mistyped_ones(load: Load) -> None:
    others = ("kcrypt", "install", "stages", "users", "cluster", "k8s", "kubernetes", "p9p")
    text = "\n".join(f"{name}: {{}}" for name in others)
    findings = load.examine(f"p2p: {{network_token: TOKEN}}\n{text}").findings
    assert {item.code for item in findings} == {"MESH-1031"}


@pytest.mark.parametrize(
    ("text", "place", "home"),
    [
        ("network_token: x", "2:1", "p2p.network_token"),
        ("auto: {ha: {master_nodes: 2}}", "2:1", "p2p.auto"),
        ("master_nodes: 2", "2:1", "p2p.auto.ha.master_nodes"),
        ("eip: 10.0.0.9", "2:1", "kubevip.eip"),
    ],
)
def test_a_key_whose_section_was_forgotten_stops_the_daemon(
    load: Load, text: str, place: str, home: str
) -> None:
    errors = load.examine(f"{text}\np2p: {{role: worker}}").errors
    (error,) = [item for item in errors if item.code == "MESH-1024"]
    assert f"c.yaml:{place}: " in error.located
    assert f"move it to {home}" in error.fix


def test_another_distribution_is_named_as_not_read(load: Load) -> None:
    found = load.examine("p2p: {network_token: TOKEN}\nk0s: {enabled: true}\nk0s-worker: {}")
    assert [item.code for item in found.findings if item.code == "MESH-1043"] == ["MESH-1043"] * 2
