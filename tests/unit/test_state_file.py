"""The state file: what was confirmed survives anything, and what cannot be used is one line."""

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest

from hub_idle_exporter.domain.keeping import Keep
from hub_idle_exporter.domain.notices import Announcement
from hub_idle_exporter.domain.policy import Reason
from hub_idle_exporter.people import state_rows
from hub_idle_exporter.people.state_file import StateFile, StateLostError
from hub_idle_exporter.people.state_rows import Stop
from hub_idle_exporter.watched_file import FileError

STARTED = datetime(2026, 11, 20, 8, 0, 0, 123456, tzinfo=timezone.utc)
ANA = ("ana", "", STARTED)
ODD = ('we ird@ex.org\n"<script>', "a'b;--", None)
KEEP, MADE = Keep(5000.5, "root"), Announcement(1000.25, 2000.5, 1100.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


def never(_seconds: float) -> bool:
    return False


def opened(path: Path, wait: Callable[[float], bool] = never) -> StateFile:
    return StateFile.opened(path, wait)


def test_what_was_saved_is_there_after_a_restart(path: Path) -> None:
    first = opened(path)
    for start in (ANA, ODD):
        first.save_keep(start, KEEP)
        first.save_announcement((start, Reason.IDLE), MADE)
    first.save_stop(("ana", ""), Stop(900.0, Reason.IDLE, 3600.5))
    first.close()
    again = opened(path)
    assert again.keeps == {ANA: KEEP, ODD: KEEP}
    assert again.announcements == {(ANA, Reason.IDLE): MADE, (ODD, Reason.IDLE): MADE}
    assert again.stops == {("ana", ""): Stop(900.0, Reason.IDLE, 3600.5)}
    assert again.cookie_key == first.cookie_key
    again.close()


def test_what_was_dropped_is_not(path: Path) -> None:
    first = opened(path)
    first.save_keep(ANA, KEEP)
    first.save_announcement((ANA, Reason.MAX_AGE), MADE)
    first.drop_keep(ANA)
    first.drop_announcement((ANA, Reason.MAX_AGE))
    first.close()
    again = opened(path)
    assert (again.keeps, again.announcements) == ({}, {})
    again.close()


def test_what_is_over_is_forgotten(path: Path) -> None:
    file = opened(path)
    file.save_keep(ANA, Keep(100.0, "ana"))
    file.save_keep(ODD, Keep(200.0, "ana"))
    file.save_stop(("ana", ""), Stop(100.0, Reason.IDLE, None))
    file.look_after(100.0 + 8 * 86400)
    assert (file.keeps, file.stops) == ({}, {})
    file.save_keep(ANA, Keep(100.0, "ana"))
    file.save_keep(ODD, Keep(1e9, "ana"))
    file.look_after(101.0 + 7 * 86400)
    file.close()
    assert opened(path).keeps == {ODD: Keep(1e9, "ana")}


def test_a_clock_that_is_wrong_for_a_while_ends_no_keep(path: Path) -> None:
    file = opened(path)
    file.save_keep(ANA, KEEP)
    file.look_after(KEEP.until + 86400)
    file.close()
    assert opened(path).keeps == {ANA: KEEP}


def test_nobody_else_may_read_it(path: Path) -> None:
    path.touch(0o644)
    opened(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_killed_exporter_loses_nothing_and_leaves_the_file_to_the_next(path: Path) -> None:
    """It is killed while it writes: what it had confirmed is there, each row whole."""
    program = (
        "import sys, datetime\n"
        "from pathlib import Path\n"
        "from hub_idle_exporter.domain.keeping import Keep\n"
        "from hub_idle_exporter.people.state_file import StateFile\n"
        "file = StateFile.opened(Path(sys.argv[1]), lambda _: True)\n"
        "for number in range(100000):\n"
        "    file.save_keep(('ana', str(number), None), Keep(1e9 + number, 'ana'))\n"
        "    print(number, flush=True)\n"
    )
    writing = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert writing.stdout is not None
    confirmed = [int(writing.stdout.readline()) for _ in range(20)]
    writing.kill()
    confirmed += [int(line) for line in writing.stdout.read().split() if line]
    writing.wait()
    file = opened(path)
    saved = {int(server): keep for (_, server, _), keep in file.keeps.items()}
    assert set(confirmed) <= saved.keys()
    assert all(keep == Keep(1e9 + number, "ana") for number, keep in saved.items())
    file.close()


def test_a_second_exporter_waits_and_then_says_who_has_it(path: Path) -> None:
    first, waits = opened(path), list[float]()

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return False

    with pytest.raises(FileError, match=r"--state-file .*: another exporter is using it"):
        opened(path, wait)
    assert 5 <= sum(waits) <= 30
    first.close()


def test_the_next_exporter_gets_it_when_the_first_one_ends(path: Path) -> None:
    first = opened(path)
    first.save_keep(ANA, KEEP)

    def ends(_seconds: float) -> bool:
        first.close()
        return False

    second = opened(path, ends)
    assert second.keeps == {ANA: KEEP}
    second.close()


def test_servers_and_check_read_it_while_the_exporter_has_it(path: Path) -> None:
    assert StateFile.reading(path).keeps == {}
    assert not path.exists()
    writer = opened(path)
    writer.save_keep(ANA, KEEP)
    assert StateFile.reading(path).keeps == {ANA: KEEP}
    writer.drop_keep(ANA)  # a reader has left no lock behind
    writer.close()


def _other_database(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("create table notes (text)")


def _newer(path: Path) -> None:
    opened(path).close()
    with sqlite3.connect(path) as database:
        database.execute("pragma user_version = 99")


def _damaged(path: Path) -> None:
    file = opened(path)
    for number in range(300):
        file.save_keep(("ana", f"{number}", None), KEEP)
    file.close()
    with path.open("r+b") as content:
        content.seek(5000)
        content.write(b"\xff" * 4000)


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("no database" * 100), "not a state file"),
    "another database": (_other_database, "not a state file"),
    "a newer version": (_newer, "another version of this exporter"),
    "damaged": (_damaged, "damaged|malformed"),
    "a folder": (lambda path: path.mkdir(), "directory"),
    "a pipe": (lambda path: os.mkfifo(path), "not a regular file"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unreadable_or_foreign_file_is_one_line(path: Path, kind: str) -> None:
    make, why = UNUSABLE[kind]
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(FileError, match=f"--state-file .*({why})") as caught:
        opened(path)
    assert "\n" not in str(caught.value)
    assert not path.is_file() or path.read_bytes() == before, "somebody else's file was changed"
    if kind != "a folder":
        with pytest.raises(FileError, match="--state-file"):
            StateFile.reading(path)


def test_a_folder_that_is_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"--state-file .*: No such file or directory"):
        opened(tmp_path / "nowhere" / "state.sqlite")


class Full:
    """A disk that is full while `now` is set: a quota of pages in the database itself."""

    def __init__(self, file: StateFile) -> None:
        self._file = file

    def fill(self) -> None:
        database = self._file._database
        assert database is not None
        used = database.execute("pragma page_count").fetchone()[0]
        database.execute(f"pragma max_page_count = {used}")

    def free(self) -> None:
        database = self._file._database
        assert database is not None
        database.execute("pragma max_page_count = 100000")


def test_a_full_disk_is_said_refused_and_loses_nothing(path: Path) -> None:
    file = opened(path)
    file.save_keep(ANA, KEEP)
    disk = Full(file)
    disk.fill()
    large = ("bob", "x" * 100_000, None)
    with pytest.raises(StateLostError, match="full"):
        file.save_keep(large, KEEP)
    assert "full" in (file.lost() or "")
    assert file.keeps == {ANA: KEEP}
    disk.free()
    file.look_after(0.0)
    assert file.lost() is None
    file.close()
    again = opened(path)
    assert again.keeps == file.keeps
    again.close()


def test_a_removed_file_is_lost_and_then_written_anew(path: Path) -> None:
    file = opened(path)
    file.save_keep(ANA, KEEP)
    path.unlink()
    assert "removed or replaced" in (file.lost() or "")
    with pytest.raises(StateLostError):
        file.save_keep(ODD, KEEP)
    assert ODD not in file.keeps
    file.look_after(0.0)
    assert file.lost() is None
    file.close()
    again = opened(path)
    assert again.keeps == {ANA: KEEP}
    again.close()


def lock_of(path: Path) -> Path:
    return Path(f"{path}.lock")


def test_a_removed_lock_is_made_anew(path: Path) -> None:
    file = opened(path)
    lock_of(path).unlink()
    assert ".lock file was removed" in (file.lost() or "")
    with pytest.raises(StateLostError):
        file.save_keep(ANA, KEEP)
    file.look_after(0.0)
    assert file.lost() is None
    file.save_keep(ANA, KEEP)
    with pytest.raises(FileError, match="another exporter is using it"):
        opened(path)
    file.close()


def test_two_exporters_never_both_confirm_keeps_though_the_lock_is_removed(path: Path) -> None:
    """The one that did not hear of a keep would stop that server when the other one has ended."""
    first = opened(path)
    first.save_keep(ANA, KEEP)
    lock_of(path).unlink()
    second = opened(path)
    for _ in range(2):
        with pytest.raises(StateLostError):
            first.save_keep(ODD, KEEP)
        first.look_after(0.0)
    assert "another exporter is using it" in (first.lost() or "")
    second.save_keep(ODD, KEEP)
    second.close()
    first.look_after(0.0)
    assert first.lost() is None
    assert first.keeps == {ANA: KEEP, ODD: KEEP}
    first.close()


def test_a_file_that_is_replaced_by_rubbish_stays_lost(path: Path) -> None:
    file = opened(path)
    file.save_keep(ANA, KEEP)
    path.unlink()
    path.write_text("rubbish" * 1000)
    for _ in range(2):
        file.look_after(0.0)
        assert "not a state file" in (file.lost() or "")
    path.unlink()
    file.look_after(0.0)
    assert file.lost() is None
    assert file.keeps == {ANA: KEEP}
    file.close()


def test_what_could_not_be_dropped_is_gone_once_the_file_works(path: Path) -> None:
    """Or a restart would bring back an announcement that was taken back."""
    file = opened(path)
    file.save_announcement((ANA, Reason.IDLE), MADE)
    moved = path.rename(path.with_suffix(".away"))
    file.drop_announcement((ANA, Reason.IDLE))
    assert file.announcements == {}
    moved.rename(path)
    assert file.lost() is not None
    file.look_after(0.0)
    assert file.lost() is None
    file.close()
    again = opened(path)
    assert again.announcements == {}
    again.close()


def test_without_a_file_nothing_is_ever_lost() -> None:
    file = opened_without = StateFile.opened(None, never)
    file.save_keep(ANA, KEEP)
    file.look_after(0.0)
    assert opened_without.lost() is None
    assert file.keeps == {ANA: KEEP}


def test_a_file_that_is_written_anew_forgets_nothing_for_a_moment(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop that is decided just then must know who keeps what, or that nobody knows."""
    file, seen = opened(path), list[tuple[object, str | None]]()
    file.save_keep(ANA, KEEP)
    write = state_rows.write

    def seen_first(database: sqlite3.Connection, known: state_rows.Contents) -> None:
        seen.append((dict(file.keeps), file.lost()))
        write(database, known)

    monkeypatch.setattr(state_rows, "write", seen_first)
    path.unlink()
    file.look_after(0.0)
    assert seen
    assert all(keeps == {ANA: KEEP} for keeps, _ in seen)
    assert all(lost is not None for _, lost in seen)
    assert file.lost() is None
    file.close()
