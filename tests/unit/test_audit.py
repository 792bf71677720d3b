"""`make audit`: when it fails, and what it tells. pip-audit is a script that answers as planned."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import audit

GOOD = {"name": "good", "version": "1", "vulns": []}
BAD = {"name": "bad", "version": "1", "vulns": [{"id": "CVE-2026-1"}]}
UNKNOWN = {"name": "unknown", "skip_reason": "not found"}


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lock files whose text is what pip-audit answers."""
    (tmp_path / "pip-audit").write_text('#!/bin/sh\nfor last; do :; done\ncat "$last"\n')
    (tmp_path / "pip-audit").chmod(0o755)
    monkeypatch.setattr(audit, "BIN", tmp_path)
    monkeypatch.setattr(audit, "LOCKS", tmp_path)
    monkeypatch.setattr(audit, "RUN", tmp_path / "run.txt")
    monkeypatch.setattr(audit, "write_sbom", lambda: None)
    return tmp_path


def answer(lock: Path, *dependencies: dict[str, Any]) -> None:
    lock.write_text(json.dumps({"dependencies": dependencies}))


@pytest.mark.parametrize(
    ("run", "others", "code", "strictly"),
    [
        ([GOOD], [GOOD], 0, 0),
        ([BAD], [GOOD], 1, 1),
        ([GOOD], [BAD], 0, 0),  # it is told, but the exporter does not have it
        ([GOOD, UNKNOWN], [GOOD], 0, 1),
        ([UNKNOWN], [BAD], 0, 1),
        ([], [], 0, 1),
    ],
)
def test_it_fails_on_what_the_exporter_itself_depends_on(
    locks: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: list[dict[str, Any]],
    others: list[dict[str, Any]],
    code: int,
    strictly: int,
) -> None:
    answer(locks / "run.txt", *run)
    answer(locks / "dev.txt", *others)
    monkeypatch.delenv("AUDIT", raising=False)
    assert audit.main() == code
    monkeypatch.setenv("AUDIT", "strict")
    assert audit.main() == strictly


def test_it_fails_where_pip_audit_does(locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (locks / "run.txt").write_text("a traceback")
    assert audit.main() == 1
    assert "pip-audit fails for run.txt" in capsys.readouterr().out


def test_what_is_vulnerable_is_named(locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(locks / "run.txt", BAD)
    audit.main()
    assert "run.txt: bad 1: CVE-2026-1" in capsys.readouterr().out
