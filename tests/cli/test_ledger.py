"""`meshd ledger` and `meshd events`."""

import json

from tests.cli.conftest import Meshd
from tests.cli.fake_daemon import FakeDaemon

ENTRIES_TABLE = """\
KEY                   AUTHOR  SEQ  AGE    SIZE  SIGNATURE
genesis/1/claim       n1      1    -      2100  valid
node/…Rcw3UERE/facts  n2      7    1m15s  412   valid
"""


def test_entries_are_listed_with_author_sequence_age_and_signature(
    meshd: Meshd, daemon: FakeDaemon
) -> None:
    assert meshd("ledger", "list").out == ENTRIES_TABLE


def test_the_author_may_be_named_by_name_id_or_unique_prefix(
    meshd: Meshd, daemon: FakeDaemon
) -> None:
    for author in ("n2", "12D3KooWBBBB2222", "12D3KooWB"):
        daemon.requests.clear()
        assert meshd("ledger", "list", "--author", author, "--key", "node/").code == 0
        assert daemon.requests[-1] == "/v1/ledger?author=12D3KooWBBBB2222&prefix=node%2F"


def test_a_prefix_of_several_nodes_is_a_usage_error_that_names_them(
    meshd: Meshd, daemon: FakeDaemon
) -> None:
    ran = meshd("ledger", "list", "--author", "n")
    assert ran.code == 2
    assert ran.err == ("error[MESH-7014]: 'n' names several nodes\n  fix: choose one of: n1, n2\n")
    assert "known are: cell-1, n1, n2" in meshd("ledger", "list", "--author", "zz").err


def test_get_shows_the_value(meshd: Meshd, daemon: FakeDaemon) -> None:
    assert meshd("ledger", "get", "genesis/1/claim").out == (
        '# genesis/1/claim by n1 (12D3KooWAAAA1111), sequence 1, age -, signature valid\n"a1b2"\n'
    )
    content = json.loads(meshd("ledger", "get", "genesis/1/claim", "-o", "json").out)
    assert content["entries"][0]["value"] == "a1b2"


def test_a_key_that_is_not_there_is_exit_1(meshd: Meshd, daemon: FakeDaemon) -> None:
    ran = meshd("ledger", "get", "nothing")
    assert ran.code == 1
    assert "error[MESH-7015]: the ledger holds nothing under 'nothing'" in ran.err


def test_events_are_lines_with_time_kind_and_cause(meshd: Meshd, daemon: FakeDaemon) -> None:
    lines = meshd("events").out.splitlines()
    assert lines[0].endswith("  started         meshd 0.1.0")
    assert lines[1].endswith("  role_decided    worker")
    assert len(meshd("events", "--since", "10m").out.splitlines()) == 1
    assert len(json.loads(meshd("events", "-o", "json").out)["events"]) == 2


def test_following_events_goes_on_from_the_last_one(meshd: Meshd, daemon: FakeDaemon) -> None:
    ran = meshd("events", "-f", "--since", "0s")
    lines = ran.out.splitlines()
    assert daemon.requests == ["/v1/events", "/v1/events?after=2"]
    assert lines[-1].endswith("  role_decided    worker")
    # The fake daemon ends its stream: that is said, and is no success.
    assert ran.code == 3
    assert ran.err.startswith("error[MESH-7019]: the daemon ended, and so did its events")


def test_followed_events_as_json_are_one_line_each(meshd: Meshd, daemon: FakeDaemon) -> None:
    lines = meshd("events", "-f", "-o", "json").out.splitlines()
    assert [json.loads(line)["number"] for line in lines] == [1, 2, 1, 2]
