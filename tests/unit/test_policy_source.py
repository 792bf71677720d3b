"""When a policy file is read and adopted: once it is whole, with the old policies until then."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hub_idle_exporter.domain.gate import ClockReading
from hub_idle_exporter.domain.policy import Policy
from hub_idle_exporter.policy_file import PolicySource, parse
from hub_idle_exporter.watched_file import LARGEST, FileError

DEFAULT = Policy("default", 3600.0, 7200.0)
GPU_ONLY = """\
policies:
  - name: gpu
    match: {users: a}
"""
GOOD = """\
policies:
  - name: scratch
    match: {users: ["tmp-*"]}
    timeout: 15m
  - name: staff
    match: {groups: [staff]}
    exempt: true
"""
# What is written first can be read by itself, and lacks the exemption.
UNFINISHED = GOOD[: GOOD.index("  - name: staff")]
ALL = ["scratch", "staff", "default"]
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

Change = Callable[[Path], object]


class Waiting:
    """Waits no time: a clock moves on, and what happens meanwhile to the file is done, in turn."""

    def __init__(self, file: Path, *meanwhile: Change | None, stopped: bool = False) -> None:
        self.file, self.meanwhile, self.stopped = file, list(meanwhile), stopped
        self.waited: list[float] = []
        self.began = time.time()

    def __call__(self, seconds: float) -> bool:
        self.waited.append(seconds)
        change = self.meanwhile.pop(0) if self.meanwhile else None
        if change is not None:
            change(self.file)
        return self.stopped

    def clocks(self) -> ClockReading:
        return ClockReading(sum(self.waited), self.began + sum(self.waited))

    def modified(self, seconds_ago: float) -> None:
        """Let the file have been modified so long before the beginning."""
        os.utime(self.file, (self.began - seconds_ago,) * 2)


def put(text: str | bytes) -> Change:
    """Write this to the file."""
    return lambda file: file.write_bytes(text.encode() if isinstance(text, str) else text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policies.yaml"
    path.write_text(GOOD)
    return path


def loaded(file: Path, *meanwhile: Change | None) -> PolicySource:
    """Load the file; what happens later, in the waits of `refresh`, can be given."""
    waiting = Waiting(file, None, *meanwhile)
    return PolicySource(file, DEFAULT, waiting).read_first(waiting.clocks)


def names(source: PolicySource) -> list[str]:
    return [policy.name for policy in source.value]


def test_an_unchanged_file_is_no_news_and_not_waited_for(file: Path) -> None:
    waiting = Waiting(file)
    source = PolicySource(file, DEFAULT, waiting).read_first(waiting.clocks)
    assert waiting.waited == [0.5]
    assert not source.refresh()
    file.write_text(GOOD)
    assert not source.refresh()
    assert waiting.waited == [0.5]


def test_a_changed_file_is_put_to_use(file: Path) -> None:
    source = loaded(file)
    file.write_text(GPU_ONLY)
    assert source.refresh()
    assert (names(source), source.error) == (["gpu", "default"], None)
    assert not source.refresh()


def test_what_is_written_first_could_be_taken_for_the_whole_file() -> None:
    assert len(parse(UNFINISHED.encode(), "p.yaml", DEFAULT)) == 2


def test_a_file_written_in_two_pieces_is_taken_when_it_is_whole(file: Path) -> None:
    """Once the first piece alone was taken, and a server that the second exempts was stopped."""
    source = loaded(file, put(GPU_ONLY))
    file.write_text(UNFINISHED)
    assert not source.refresh()
    assert (names(source), source.error) == (ALL, None)
    assert source.refresh()
    assert (names(source), source.error) == (["gpu", "default"], None)


@pytest.mark.parametrize("first", ["policies:\n", b"\xff", "policies: [", ""])
def test_a_file_that_is_broken_only_while_it_is_written_is_no_failure(
    file: Path, first: str | bytes
) -> None:
    source = loaded(file, put(GPU_ONLY))
    put(first)(file)
    assert not source.refresh()
    assert source.error is None
    assert source.refresh()
    assert source.error is None


def test_a_file_that_is_changed_back_is_no_news(file: Path) -> None:
    source = loaded(file, put(GOOD))
    file.write_text(UNFINISHED)
    assert not source.refresh()
    assert not source.refresh()
    assert (names(source), source.error) == (ALL, None)


def test_a_file_is_not_waited_for_when_the_exporter_is_to_end(file: Path) -> None:
    waiting = Waiting(file)
    source = PolicySource(file, DEFAULT, waiting).read_first(waiting.clocks)
    file.write_text(GPU_ONLY)
    waiting.stopped = True
    assert not source.refresh()
    assert names(source) == ALL


def vanish(file: Path) -> None:
    if file.is_dir() and not file.is_symlink():
        file.rmdir()
    else:
        file.unlink()


def instead(make: Callable[[Path], object]) -> Change:
    """Put something else in the file's place."""

    def change(file: Path) -> None:
        vanish(file)
        make(file)

    return change


WORSE: dict[str, tuple[Change, str]] = {
    "vanished": (vanish, "cannot be read: No such file or directory"),
    "directory": (instead(Path.mkdir), "cannot be read: Is a directory"),
    "pipe": (instead(os.mkfifo), "is not a regular file"),
    "zeros without end": (instead(lambda file: file.symlink_to("/dev/zero")), "not a regular file"),
    "nothing": (instead(lambda file: file.symlink_to("/dev/null")), "is not a regular file"),
    "loop": (instead(lambda file: file.symlink_to(file)), "cannot be read: Too many levels"),
    "10 MB": (put(GOOD + "#" * 10_000_000), "is larger than 1 MiB"),
    "cut short": (put(""), "`policies`"),
    "mistaken": (put(GOOD + "    timeot: 5\n"), "'staff': timeot"),
    "not UTF-8": (put(b"policies: \xff"), "not valid YAML"),
    "tag": (put("policies: !!int ''"), "the tag '!!int'"),
    "half a surrogate": (put(GPU_ONLY.replace("gpu", '"\\ud800"')), "not surrogates"),
    "laughs": (put(LAUGHS), "100000 values"),
}


@pytest.mark.parametrize("name", WORSE)
def test_a_file_that_got_worse_keeps_the_old_policies_and_says_so_once(
    file: Path, name: str
) -> None:
    source = loaded(file)
    worse, sentence = WORSE[name]
    worse(file)
    assert source.refresh()
    assert names(source) == ALL
    assert source.error is not None
    assert source.error.startswith(f"policy file {file}")
    assert sentence in source.error
    assert not source.refresh(), "said already"
    assert source.error is not None


@pytest.mark.parametrize("name", WORSE)
@pytest.mark.parametrize("text", [GOOD, GPU_ONLY])
def test_a_file_that_got_well_again_is_put_to_use(file: Path, name: str, text: str) -> None:
    source = loaded(file)
    WORSE[name][0](file)
    source.refresh()
    if file.exists() or file.is_symlink():
        vanish(file)
    file.write_text(text)
    assert source.refresh()
    assert source.error is None
    assert len(names(source)) == (3 if text == GOOD else 2)


def test_a_file_that_vanishes_only_while_it_is_replaced_is_no_failure(file: Path) -> None:
    source = loaded(file, put(GPU_ONLY))
    vanish(file)
    assert not source.refresh()
    assert source.error is None
    assert source.refresh()
    assert names(source) == ["gpu", "default"]


def test_a_broken_file_that_vanishes_and_comes_back_is_still_broken(file: Path) -> None:
    source = loaded(file)
    worse = WORSE["mistaken"][0]
    worse(file)
    source.refresh()
    broken = source.error
    vanish(file)
    assert source.refresh()
    worse(file)
    assert source.refresh()
    assert source.error == broken


def test_a_file_of_one_mebibyte_is_read_and_no_larger_one(file: Path) -> None:
    source = loaded(file)
    file.write_text(GPU_ONLY + "#" * (LARGEST - len(GPU_ONLY)))
    assert source.refresh()
    assert names(source) == ["gpu", "default"]
    file.write_text(GOOD + "#" * (LARGEST + 1 - len(GOOD)))
    assert source.refresh()
    assert (names(source), source.error) == (
        ["gpu", "default"], f"policy file {file} is larger than 1 MiB",
    )  # fmt: skip


def test_a_pipe_is_not_read(file: Path) -> None:
    """What comes out of it is gone for whoever else reads it, and may have no end."""
    source = loaded(file)
    instead(os.mkfifo)(file)
    pipe = os.open(file, os.O_RDWR)
    os.write(pipe, GPU_ONLY.encode())
    assert source.refresh()
    assert names(source) == ALL
    assert os.read(pipe, 1000).decode() == GPU_ONLY
    os.close(pipe)


# ---- at the start -------------------------------------------------------------------------------


def refused(file: Path, waiting: Waiting) -> str:
    """Give what is said of a file that cannot be used at the start."""
    with pytest.raises(FileError) as caught:
        PolicySource(file, DEFAULT, waiting).read_first(waiting.clocks)
    assert str(caught.value).startswith(f"policy file {file}")
    return str(caught.value)


@pytest.mark.parametrize("name", WORSE)
def test_a_file_that_cannot_be_used_at_the_start_is_refused(file: Path, name: str) -> None:
    change, sentence = WORSE[name]
    change(file)
    assert sentence in refused(file, Waiting(file))


def test_a_file_that_is_missing_is_waited_for_5_seconds(file: Path) -> None:
    vanish(file)
    waiting = Waiting(file)
    refused(file, waiting)
    assert 5 <= sum(waiting.waited) < 6


def test_a_broken_file_that_nobody_has_touched_for_a_while_is_refused_at_once(file: Path) -> None:
    WORSE["mistaken"][0](file)
    waiting = Waiting(file)
    waiting.modified(seconds_ago=6)
    refused(file, waiting)
    assert sum(waiting.waited) == 0.5


def test_a_broken_file_that_was_just_written_is_tried_again(file: Path) -> None:
    WORSE["mistaken"][0](file)
    waiting = Waiting(file)
    waiting.modified(seconds_ago=3)
    refused(file, waiting)
    assert 2 < sum(waiting.waited) < 3


@pytest.mark.parametrize("before", ["vanished", "cut short", "mistaken", "not UTF-8", "directory"])
def test_a_file_that_is_whole_a_moment_after_the_start_is_taken(file: Path, before: str) -> None:
    def complete(file: Path) -> None:
        if file.exists():
            vanish(file)
        file.write_text(GOOD)

    WORSE[before][0](file)
    waiting = Waiting(file, None, None, complete)
    source = PolicySource(file, DEFAULT, waiting).read_first(waiting.clocks)
    assert (names(source), source.error) == (ALL, None)
    assert sum(waiting.waited) < 5


def test_a_file_written_in_two_pieces_at_the_start_is_taken_when_it_is_whole(file: Path) -> None:
    file.write_text(UNFINISHED)
    waiting = Waiting(file, put(GOOD))
    source = PolicySource(file, DEFAULT, waiting).read_first(waiting.clocks)
    assert names(source) == ALL


def test_a_file_that_is_never_the_same_twice_is_refused_at_the_start(file: Path) -> None:
    changes = [put(f"{GOOD}# {number}") for number in range(100)]
    assert "changes all the time" in refused(file, Waiting(file, *changes))


def test_the_start_is_given_up_when_the_exporter_is_to_end(file: Path) -> None:
    vanish(file)
    waiting = Waiting(file, stopped=True)
    refused(file, waiting)
    assert len(waiting.waited) == 2
