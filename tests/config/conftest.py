"""Fixtures of the configuration's tests."""

from pathlib import Path

import pytest

from tests.config.loading import Load


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load settings from the text of one file in a folder of its own."""
    return Load(tmp_path)
