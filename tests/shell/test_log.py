"""The log's three forms, its levels, and what libraries say."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from pathlib import Path

import pytest

from meshd.errors import MeshdError
from meshd.observe import open_log, shown_at_the_end
from tests.shell.log_bench import NODE, TOKEN, Terminal, bench

pytestmark = pytest.mark.usefixtures("undisturbed_logging")


def test_a_collector_gets_json_lines_with_the_fields_of_the_page() -> None:
    made = bench()
    made.daemon_log.name_node(NODE)
    made.log.warning("storage_failed", code="MESH-2006", what="disk full", count=3, none=None)
    (line,) = made.objects()
    assert list(line)[:5] == ["ts", "level", "event", "code", "node"]
    assert line["ts"].endswith("Z")
    assert (line["level"], line["code"], line["node"]) == ("warning", "MESH-2006", NODE)
    assert (line["count"], line["none"]) == (3, None)


def test_the_journal_gets_short_lines_with_a_priority(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w+") as stream:
        found = os.fstat(stream.fileno())
        journal = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        log, daemon_log = open_log("debug", journal, clock=lambda: 0.0, stream=stream)
        daemon_log.name_node(NODE)
        log.info("role_decided", text="worker: 3 seats are taken")
        log.warning("peer_rejected", peer=NODE, reason='a "bad" frame')
        log.error("failed", text="two\nlines")
        log.debug("detail", addresses=["/ip4/10.0.0.11/tcp/7946", "/ip6/::1/tcp/7946"], n=[])
        stream.seek(0)
        assert stream.read().splitlines() == [
            "<6>role_decided: worker: 3 seats are taken",
            '<4>peer_rejected peer=…Rcw3UERE reason="a \\"bad\\" frame"',
            "<3>failed: two lines",
            '<7>detail addresses=/ip4/10.0.0.11/tcp/7946,/ip6/::1/tcp/7946 n=""',
        ]
        error = MeshdError("MESH-2001", "no disk", fix="mount it")
        assert shown_at_the_end(error, journal, stream) == (
            "<3>error[MESH-2001]: no disk\n<3>  fix: mount it"
        )


def test_a_journal_that_only_the_parent_writes_to_is_not_taken_for_ones_own(
    tmp_path: Path,
) -> None:
    with (tmp_path / "stderr").open("w+") as stream:
        log, _ = open_log("info", {"JOURNAL_STREAM": "1:2"}, clock=lambda: 0.0, stream=stream)
        log.info("listening")
        stream.seek(0)
        assert json.loads(stream.read())["event"] == "listening"
        error = MeshdError("MESH-2001", "no disk", fix="mount it")
        assert shown_at_the_end(error, {}, stream) == error.render()


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_a_person_gets_time_level_and_words(environment: dict[str, str], *, coloured: bool) -> None:
    made = bench(environment=environment, stream=Terminal())
    made.log.error("vip_not_removed", text="busy", address="10.0.0.50")
    (line,) = made.lines()
    assert ("\x1b[31m" in line) == coloured
    assert line[2] == line[5] == ":"
    assert "error" in line
    assert line.endswith("vip_not_removed: busy address=10.0.0.50")


def test_what_others_send_does_not_reach_the_terminal_as_control_characters() -> None:
    made = bench(stream=Terminal(), environment={"NO_COLOR": "1"})
    made.log.info("peer_joined", text="\x1b[2J\r\nfake line")
    assert len(made.lines()) == 1
    assert "\x1b" not in made.stream.getvalue()


def test_levels_are_those_of_the_configuration() -> None:
    made = bench("warning")
    made.log.info("quiet")
    made.log.warning("loud")
    assert [line["event"] for line in made.objects()] == ["loud"]


def test_a_traceback_is_part_of_its_line() -> None:
    made = bench()
    try:
        raise ValueError(TOKEN)
    except ValueError:
        made.log.exception("broken")
    sys.excepthook(RuntimeError, RuntimeError("end"), None)
    first, last = made.objects()
    assert "ValueError: (hidden)" in first["exception"]
    assert (last["level"], last["event"]) == ("critical", "crashed")
    assert last["text"] == "RuntimeError: end"


# Libraries.


def test_libraries_speak_through_the_same_log() -> None:
    made = bench()
    logging.getLogger("hypercorn").error("app failed for %s", TOKEN)
    logging.getLogger("httpx").info("HTTP Request")
    logging.getLogger("libp2p.network").error("failed to dial")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    lines = made.objects()
    assert [line["library"] for line in lines] == ["hypercorn", "py.warnings"]
    assert lines[0]["text"] == "app failed for (hidden)"


def test_libp2p_is_heard_at_debug_and_believed_no_more_than_that() -> None:
    made = bench("debug")
    logging.getLogger("libp2p.network").error("failed to dial")
    logging.getLogger("libp2p.network").debug("bytes")
    assert [(line["level"], line["text"]) for line in made.objects()] == [
        ("debug", "failed to dial")
    ]
