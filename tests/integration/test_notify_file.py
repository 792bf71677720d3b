"""The notify file: what is in it is tried when it is read, and no error shows a URL."""

from pathlib import Path

import pytest
from documentation import blocks

from hub_idle_exporter.notifying.notify_file import NotifyFile
from hub_idle_exporter.watched_file import LARGEST, FileError, exposed_to_others


def parsed(tmp_path: Path, *lines: str) -> NotifyFile:
    file = NotifyFile(tmp_path / "notify.txt", lambda _seconds: False)
    file.value = file.parse("\n".join(lines).encode())
    return file


def refusal(tmp_path: Path, *lines: str) -> str:
    with pytest.raises(FileError) as caught:
        parsed(tmp_path, *lines)
    return str(caught.value)


def test_comments_and_empty_lines_count_as_lines(tmp_path: Path) -> None:
    file = parsed(
        tmp_path, "# people", "", "  mailto://h?from=a@b.org&to={user}@b.org  ", "json://h/x"
    )
    assert [(one.name, one.is_personal) for one in file.value] == [
        ("line 3", True),
        ("line 4", False),
    ]


REFUSED = {
    "nosuch://s3cret/": "Apprise cannot use this URL",
    "s3cret": "it is not a URL",
    "mailto://h?from=s3cret": "Apprise cannot use this URL",
    "mailto://s3cret@h?to={user}@b.c,s3cret@b.c": "may stand only in",
    "mailto://s3cret@h.org?to=ada@b.org,bob@b.org": "it has several recipients",
    "mailto://s3cret@h.org/bob@b.org?to={user}@b.org": "it has several recipients",
    "mailto://s3cret@h.org?to=ada@b.org&cc=x@b.org": "cc and bcc are not possible",
    "mailto://{user}:s3cret@h.org": "may stand only in",
    "mmosts://s3cret/tokentokentoken12345678901?to=@{user}": "the service takes no name",
}


@pytest.mark.parametrize(("line", "why"), REFUSED.items())
def test_an_unusable_url_is_named_by_its_line_and_not_shown(
    tmp_path: Path, line: str, why: str
) -> None:
    error = refusal(tmp_path, "# first", line)
    assert error.startswith(f"notify file {tmp_path}/notify.txt: line 2: ")
    assert why in error
    assert "s3cret" not in error


@pytest.mark.parametrize(("_page", "lines"), blocks("text", ["docs/notices.md"]))
def test_what_the_page_shows_can_be_used(tmp_path: Path, _page: str, lines: str) -> None:
    assert parsed(tmp_path, lines).value


def test_a_file_without_a_url_or_that_is_no_text_is_refused(tmp_path: Path) -> None:
    assert "has no URL" in refusal(tmp_path, "# nothing")
    with pytest.raises(FileError, match="is not a text file"):
        NotifyFile(tmp_path, lambda _seconds: False).parse(b"\xff\xfe")


def test_a_file_that_is_no_file_or_is_too_large_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"#" * (LARGEST + 1))
    for path, why in (
        (tmp_path, "cannot be read|is not a regular file"),
        (tmp_path / "none", "cannot be read"),
        (Path("/dev/zero"), "is not a regular file"),
        (large, "is larger than 1 MiB"),
    ):
        file = NotifyFile(path, lambda _seconds: False)
        with pytest.raises(FileError, match=why):
            file.parse(file.find())


def test_that_others_can_read_the_file_is_said(tmp_path: Path) -> None:
    file = tmp_path / "notify.txt"
    file.touch(0o600)
    assert exposed_to_others(str(file)) is None
    file.chmod(0o604)
    assert f"can read {file}: chmod o-r {file}" in str(exposed_to_others(str(file)))


def test_secrets_are_masked_in_any_text(tmp_path: Path) -> None:
    url = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/@{user}"
    file = parsed(tmp_path, url, "mailto://hub:pa55%2Fword@h.org?to={user}@b.org", "json://h/abc")
    assert file.mask(f"at {url}: no") == "at ***: no"
    for secret in ("A1BRTD4JD", "TIiajkdnlazkcOXrIdevi7FQ", "pa55/word", "pa55%2Fword"):
        assert file.mask(f"<{secret}>") == "<***>"
    assert file.mask("a user of h.org") == "a user of h.org"
