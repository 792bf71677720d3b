"""The file of the token: it is read as a whole, or refused."""

from pathlib import Path

import pytest

from hub_idle_exporter.domain.settings import ConfigError
from hub_idle_exporter.hub.token import find_token


def test_a_file_of_the_longest_size_is_read_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x" * 4095 + "\n")
    assert find_token(str(tmp_path / "token"), {}).header == "token " + "x" * 4095


def test_a_file_that_is_too_long_is_refused_and_not_cut(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x" * 4097)
    with pytest.raises(ConfigError, match="has more than 4096 characters") as caught:
        find_token(str(tmp_path / "token"), {})
    assert "xxx" not in str(caught.value)


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="has more than 4096 characters"):
        find_token("/dev/zero", {})
