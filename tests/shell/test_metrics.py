"""`/metrics` of nodes that really formed, and the page that lists them.

`MESHD_REWRITE=1 pytest tests/shell/test_metrics.py` rewrites the table of docs/observability.md.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families

from meshd.events import Health, K3sObserved
from meshd.figures import read_figures
from meshd.metrics import METRICS, Exposition, Lag, Snapshot, Tally
from meshd.node import Node
from tests.node.test_status import node_in, world_after

PAGE = Path(__file__).parent.parent.parent / "docs" / "observability.md"
HEADING = "| metric | kind | labels | what it says |\n|---|---|---|---|\n"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def tally() -> Tally:
    counted = Tally(started_at=100.0)
    counted.reached("listening", 100.5)
    counted.note("peer_joined", 101.0)
    counted.note("peer_joined", 107.0)
    counted.note("role_decided", 108.0)
    counted.lag.note(0.25, 110.0)
    return counted


def samples(node: Node) -> Samples:
    """What a scraper would read of a node."""
    text = Exposition().render(
        Snapshot(figures=read_figures(node), tally=tally(), version="1.2.3", now=130.0)
    )
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def formed(machines: int = 5) -> list[Node]:
    world = world_after(120.0, machines)
    return [node_in(world, index) for index in range(machines)]


def test_a_formed_node_says_what_status_says() -> None:
    node = next(one for one in formed() if one.seat == "initialiser")
    read = samples(node)
    assert read["meshd_build_info", (("version", "1.2.3"),)] == 1
    assert read["meshd_uptime_seconds", ()] == 30
    assert read["meshd_role_info", (("role", "control-plane"),)] == 1
    assert read["meshd_phase_info", (("genesis", "formed"), ("phase", "steady"))] == 1
    assert read["meshd_peers", (("path", "direct"), ("state", "alive"))] == 4
    assert read["meshd_ledger_entries", (("bucket", "genesis"),)] == 3
    held = sum(value for (name, _), value in read.items() if name == "meshd_ledger_entries")
    assert held == len([one for one in node.replica.entries.values() if one.value is not None])
    assert read["meshd_control_plane_ready", ()] == 3
    assert read["meshd_bootstrap_stage_seconds", (("stage", "joined"),)] == 1.0
    assert read["meshd_events_total", (("kind", "peer_joined"),)] == 2
    assert read["meshd_role_transitions_total", ()] == 1
    assert read["meshd_event_loop_lag_seconds", ()] == 0.25
    assert read["process_resident_memory_bytes", ()] > 0


def test_the_holder_of_the_vip_is_who_k3s_says_and_nobody_without_a_vip() -> None:
    node = node_in(world_after(0.7, machines=1), 0)
    assert samples(node)["meshd_vip_holder", ()] == 0
    node.observed = K3sObserved(state="ready", vip_holder=node.facts.node_name)
    assert samples(node)["meshd_vip_holder", ()] == 1
    node.observed = K3sObserved(state="ready", vip_holder="another-00000000")
    assert samples(node)["meshd_vip_holder", ()] == 0
    node.vip = None
    assert ("meshd_vip_holder", ()) not in samples(node)


def test_a_node_that_waits_has_no_role_and_says_so() -> None:
    read = samples(node_in(world_after(0.5, machines=1), 0))
    assert read["meshd_peers", (("path", "direct"), ("state", "alive"))] == 0
    assert read["meshd_role_info", (("role", "undecided"),)] == 1
    assert ("meshd_nodes_ready", ()) not in read


def test_the_number_of_series_does_not_grow_with_the_network() -> None:
    small, large = samples(formed()[0]), samples(formed(12)[0])
    meshd = {key for key in large if key[0].startswith("meshd_")}
    assert meshd - set(small) == set()


def test_the_lag_of_a_minute_is_kept_and_then_forgotten() -> None:
    lag = Lag()
    lag.note(2.0, 1000.0)
    for now in range(1002, 1060, 2):
        lag.note(0.001, float(now))
    assert lag.worst_s == 2.0
    for now in range(1060, 1122, 2):
        lag.note(0.001, float(now))
    assert lag.worst_s == 0.001


def rows() -> str:
    lines = []
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |\n")
    return "".join(lines)


def test_the_page_lists_every_metric_as_it_is() -> None:
    text = PAGE.read_text(encoding="utf-8")
    start = text.index(HEADING) + len(HEADING)
    end = text.index("\n\n", start) + 1
    if "MESHD_REWRITE" in os.environ:
        text = text[:start] + rows() + text[end:]
        PAGE.write_text(text, encoding="utf-8")
        end = text.index("\n\n", start) + 1
    assert text[start:end] == rows()


def test_names_follow_prometheus_practice() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"meshd_[a-z0-9_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name


def test_the_pages_alert_rules_ask_for_what_there_is() -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    (rules,) = [yaml.safe_load(block) for block in blocks if "alert:" in block]
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len(alerts) >= 6
    known = {metric.name: set(metric.labels) for metric in METRICS}
    for alert in alerts:
        asked = re.findall(r"(meshd_\w+)(?:\{([^}]*)\})?", alert["expr"])
        assert asked, alert
        for name, matchers in asked:
            labels = set(re.findall(r"(\w+)[=!]", matchers))
            assert labels <= known.get(name, set()), alert["alert"]
            assert name in known, alert["alert"]
        assert alert["annotations"]["summary"]


def test_what_is_wrong_is_counted_by_code_and_severity() -> None:
    node = node_in(world_after(0.6, machines=1), 0)
    deaf = Health(code="MESH-3103", severity="warning", message="deaf", fix="free the port")
    node.shell_health = (deaf, deaf)
    read = samples(node)
    labels = (("code", "MESH-3103"), ("severity", "warning"))
    assert read["meshd_health_messages", labels] == 2
