"""A daemon whose token has expired: a new machine is refused, a member goes on."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from ledger import Instant, Moment
from meshd.config import encode_token, load_settings, new_token
from meshd.daemon import _start
from meshd.daemon._lookout import unjudged_token
from meshd.errors import ConfigError
from meshd.metrics import Tally
from meshd.observe import open_log

pytestmark = pytest.mark.usefixtures("undisturbed_logging")

LAST_DAY = date(2026, 2, 27)
NOON_MS = 1_772_193_600_000  # 2026-02-27T12:00:00Z
DAY_MS = 86_400_000


@dataclass
class Site:
    """A machine with a file, and a clock that a test sets."""

    config: Path
    state: Path
    wall_ms: int = NOON_MS

    def open(self) -> _start.Opened:
        """Do all that a start of the daemon does before it speaks to anyone."""
        self.state.mkdir(exist_ok=True)
        settings = load_settings([self.config], {})
        log, daemon_log = open_log("error", os.environ, clock=lambda: 0.0)
        opened = _start._open(settings, self.state, log, daemon_log, Tally(started_at=0.0))
        opened.store.close()
        return opened


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    token = new_token(
        control_plane=3,
        nodes_max=None,
        seeds=(),
        random_bytes=random.Random(3).randbytes,
        expires=LAST_DAY,
    )
    config = tmp_path / "config.yaml"
    config.write_text(f"#cloud-config\np2p:\n  network_token: {encode_token(token)}\n")
    made = Site(config, tmp_path / "state")
    monkeypatch.setattr(
        _start, "read_moment", lambda: Moment(at=Instant(0.0), wall_ms=made.wall_ms)
    )
    return made


def test_a_new_machine_does_not_start_to_join_with_an_expired_token(site: Site) -> None:
    site.wall_ms += DAY_MS
    with pytest.raises(ConfigError) as caught:
        site.open()
    assert (caught.value.code, caught.value.exit_code) == ("MESH-1070", 6)
    assert "expired on 2026-02-27" in caught.value.what
    assert "2026-02-28" in str(caught.value.cause)
    assert "meshd token join" in caught.value.fix
    assert not (site.state / "identity.key").exists()
    site.wall_ms -= DAY_MS  # The clock was wrong, and is set: it goes on by itself.
    assert site.open().is_new


def test_a_member_goes_on_when_its_token_expires(site: Site) -> None:
    first = site.open()
    site.wall_ms += 400 * DAY_MS
    again = site.open()
    assert again.identity.node_id == first.identity.node_id
    assert not again.is_new
    assert again.may_vote == first.may_vote


def test_a_clock_that_was_never_set_cannot_judge_and_says_so_until_it_is(site: Site) -> None:
    site.wall_ms = 0
    opened = site.open()
    network = opened.settings.network
    assert opened.is_new
    (item,) = unjudged_token(network, wall_ms=0)
    assert item.code == "MESH-1071"
    assert "until 2026-02-27" in item.message
    assert "1970-01-01" in item.message
    assert unjudged_token(network, wall_ms=NOON_MS) == ()
