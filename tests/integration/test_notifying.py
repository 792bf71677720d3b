"""People are told about their servers, each one alone, and whatever is wrong nobody waits for it.

Mail goes to a real mail server, webhooks to a real web server.
"""

import io
import logging
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trustme
from documentation import block
from example_counts import examples
from hypothesis import given
from hypothesis import strategies as st
from smtp_sink import SmtpSink
from webhook import Webhook

from hub_idle_exporter import log
from hub_idle_exporter.domain.labels import NotificationEvent, NotificationResult
from hub_idle_exporter.domain.messages import Words, due_words
from hub_idle_exporter.domain.policy import Reason
from hub_idle_exporter.notifying import waiting
from hub_idle_exporter.notifying.notifier import ATTEMPTS_AFTERWARDS, Notifier
from hub_idle_exporter.notifying.notify_file import NotifyFile
from hub_idle_exporter.notifying.sender import Pace
from hub_idle_exporter.notifying.target import Target
from hub_idle_exporter.notifying.waiting import Notice

PATIENCE = 30.0
DUE, STOPPED = NotificationEvent.DUE, NotificationEvent.STOPPED
SENT, FAILED = NotificationResult.SENT, NotificationResult.FAILED
QUICK = Pace(between=0, patience=PATIENCE, first_pause=0.02, longest_pause=0.05, look=0.02)
# Nothing is tried a second time.
ONCE = Pace(between=0, first_pause=3600, longest_pause=3600, look=0.02)


class Desk:
    """A notifier over a file with these lines, and what it did."""

    def __init__(self, path: Path, *lines: str, pace: Pace = QUICK) -> None:
        self.path, self.stopping, self.changed = path, threading.Event(), threading.Condition()
        self.counted, self.delivered = Counter[tuple[str, str]](), list[object]()
        self.started = False
        self.write(*lines)
        self.file = NotifyFile(path, lambda _seconds: False).read_first()
        self.notifier = Notifier(self.file, self.count, self.stopping, pace=pace)

    def write(self, *lines: str) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text("\n".join(lines) + "\n")
        fresh.chmod(0o600)
        fresh.replace(self.path)

    def count(self, event: NotificationEvent, result: NotificationResult) -> None:
        with self.changed:
            self.counted[event, result] += 1
            self.changed.notify_all()

    def took(self, key: object) -> None:
        with self.changed:
            self.delivered.append(key)
            self.changed.notify_all()

    def wait(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE), (self.counted, self.delivered)

    def tell(self, user: str, server: str = "", event: NotificationEvent = DUE) -> tuple[str, str]:
        key = (user, server)
        words = partial(due_words, server, Reason.IDLE, 3600, 900, "")
        self.notifier.tell(Notice(event, user, server, key, words), lambda: self.took(key))
        return key

    def start(self) -> None:
        if not self.started:
            self.started = True
            self.notifier.start()

    def tried(self, *users: str) -> bool:
        """Tell these people, once; tell whether all of them were told."""
        self.start()
        for user in users:
            self.tell(user)
        return self.notifier.drain(PATIENCE)


OpenDesk = Callable[..., Desk]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[OpenDesk]:
    """Open desks that are closed at the end."""
    opened: list[Desk] = []

    def open_desk(*lines: str, pace: Pace = QUICK) -> Desk:
        opened.append(Desk(tmp_path / f"notify{len(opened)}", *lines, pace=pace))
        return opened[-1]

    yield open_desk
    for one in opened:
        one.stopping.set()
    for thread in threading.enumerate():
        if thread.name == "notifier":
            thread.join(PATIENCE)


@pytest.fixture
def sink() -> Iterator[SmtpSink]:
    """A mail server."""
    with SmtpSink() as opened:
        yield opened


@pytest.fixture
def hook() -> Iterator[Webhook]:
    """A web server."""
    with Webhook() as opened:
        yield opened


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is written to standard error from here on, at level debug, by any library too."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    handler = logging.StreamHandler(stream)
    handler.addFilter(lambda record: record.name != "mail.log")  # the mail server's
    monkeypatch.setattr(logging.root, "handlers", [handler])
    monkeypatch.setattr(logging.root, "level", logging.DEBUG)
    log.configure("debug", "logfmt", lambda text: text)
    return stream


def suffixed(sink: SmtpSink) -> str:
    return f"mailto://{sink.address}/?from=hub@example.org&to={{user}}@example.org"


def addressed(sink: SmtpSink) -> str:
    return f"mailto://{sink.address}/?from=hub@example.org&to={{user}}"


def test_a_person_is_mailed_once_in_plain_text(desk: OpenDesk, sink: SmtpSink) -> None:
    one = desk(suffixed(sink))
    assert one.tried("ada")
    (mail,) = sink.mails
    assert (mail.sender, mail.recipients) == ("hub@example.org", ["ada@example.org"])
    assert mail.subject == "Your server will be stopped in 15 minutes"
    assert mail.text == due_words("", Reason.IDLE, 3600, 900, "").body
    assert one.delivered == [("ada", "")]
    assert one.counted == {(DUE, SENT): 1}


def test_a_mail_address_as_the_name_of_a_user_is_mailed(desk: OpenDesk, sink: SmtpSink) -> None:
    names = ("ada@example.org", "grace+hub@uni.example.org")
    assert desk(addressed(sink)).tried(*names)
    assert sorted(mail.recipients for mail in sink.mails) == [[name] for name in names]


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_a_password_with_any_character_signs_in_at_the_mail_server(desk: OpenDesk) -> None:
    with SmtpSink(account=("hub", "p@ss/w:rd?#")) as sink:
        account = "hub:p%40ss%2Fw%3Ard%3F%23"
        url = suffixed(sink).replace("://", f"://{account}@")
        assert desk(url, pace=ONCE).tried("ada")
        wrong = desk(url.replace("ss", "zz"), pace=ONCE)
        assert not wrong.tried("ada")
        assert "535" in str(wrong.notifier.problem(("ada", "")))
        assert len(sink.mails) == 1


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_a_mail_server_with_tls_must_have_a_certificate_that_is_trusted(
    desk: OpenDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the page has it, with another host and port."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (line,) = [
        line
        for line in block("docs/notices.md", "mailtos://", "text").splitlines()
        if not line.startswith("#")
    ]
    with SmtpSink(account=("jupyterhub", "PASSWORD"), tls=context) as sink:
        one = desk(line.replace("smtp.example.org:587", sink.address), pace=ONCE)
        assert not one.tried("ada@example.org")
        assert sink.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert not one.tried("grace@example.org")
        assert one.delivered == [("grace@example.org", "")]
        assert [mail.recipients for mail in sink.mails] == [["grace@example.org"]]


HOSTILE = (
    "mallory@evil.example.com",
    "ada@evil.example.com,",
    "ada,mallory",
    "we ird",
    "b'ada",
    "<ada>",
    "ada@evil",
    "@ada",
    "ada+x",
    "ada%2Cmallory",
    "ada;mallory",
    "ada\nmallory",
    "..",
    ".ada",
    "ada..",
    "../ada",
    "ada?to=mallory",
    "ada&bcc=mallory@evil.example.com",
    "adå",
    "",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_of_a_user_reaches_anybody_else(
    desk: OpenDesk, sink: SmtpSink, hook: Webhook, name: str
) -> None:
    one = desk(suffixed(sink), f"json://{hook.address}/tell/x-{{user}}?:who=x-{{user}}", pace=ONCE)
    told = one.tried(name)
    assert sink.mails == []
    assert all(posted.path == f"/tell/x-{name}" for posted in hook.posted)
    assert told == bool(hook.posted)
    if not told:
        assert one.counted == {(DUE, FAILED): 1}
        assert "line 1: the" in str(one.notifier.problem((name, "")))


def test_a_name_that_apprise_reads_as_another_is_not_sent(desk: OpenDesk, sink: SmtpSink) -> None:
    """It was tried before with a plain name, and nothing may be different but the name."""
    one = desk(suffixed(sink), pace=ONCE)
    assert not one.tried("ada..grace")
    assert one.notifier.problem(("ada..grace", "")) == "line 1: the service takes no such name"


@pytest.fixture(scope="module")
def sink_of_all() -> Iterator[SmtpSink]:
    """A mail server for many names."""
    with SmtpSink() as opened:
        yield opened


@given(st.text(st.sampled_from("aZ9@.,;:+-_ \t\n'\"<>()[]{}%&=/\\?#!~|é\u2028@.,"), max_size=12))
@examples(150)
def test_a_name_is_mailed_at_its_own_address_or_not_at_all(
    sink_of_all: SmtpSink, name: str
) -> None:
    words = Words("Title", "Text")
    for url, address in (
        (suffixed(sink_of_all), f"{name}@example.org"),
        (addressed(sink_of_all), name),
        (suffixed(sink_of_all).replace("to={user}", "to=x-{user}"), f"x-{name}@example.org"),
    ):
        del sink_of_all.asked[:]
        Target(1, url).send(words, name, "")
        assert {one.lower() for one in sink_of_all.asked} <= {address.lower()}


@pytest.mark.parametrize("name", [*HOSTILE[1:8], "ada", "ada@", "a@b@example.org", "ada@example"])
def test_only_a_whole_mail_address_is_an_address(desk: OpenDesk, sink: SmtpSink, name: str) -> None:
    assert not desk(addressed(sink), pace=ONCE).tried(name)
    assert sink.mails == []


def test_the_name_of_a_server_is_chosen_by_its_user_and_as_suspect(
    desk: OpenDesk, hook: Webhook
) -> None:
    one = desk(f"json://{hook.address}/{{user}}/{{server}}", pace=ONCE)
    one.start()
    good = [one.tell("ada", "gpu-1"), one.tell("ada", "")]
    bad = [one.tell("ada", server) for server in ("../bob", "a,b", "x@evil.example.com", "a b")]
    assert not one.notifier.drain(PATIENCE)
    assert one.delivered == good
    assert [posted.path for posted in hook.posted] == ["/ada/gpu-1", "/ada/default"]
    for key in bad:
        assert "the name of the server has characters" in str(one.notifier.problem(key))


def test_what_a_mail_server_refuses_is_not_delivered(desk: OpenDesk, sink: SmtpSink) -> None:
    sink.refuses = lambda address: address.startswith("ada")
    one = desk(suffixed(sink), pace=ONCE)
    assert not one.tried("ada", "grace")
    assert one.delivered == [("grace", "")]
    assert one.notifier.undelivered().count == 1
    assert "550" in str(one.notifier.problem(("ada", "")))


def test_a_broadcast_does_not_count_where_a_person_could_be_told(
    desk: OpenDesk, sink: SmtpSink, hook: Webhook
) -> None:
    sink.refuses = lambda _address: True
    one = desk(f"json://{hook.address}/all", suffixed(sink), pace=ONCE)
    assert not one.tried("ada")
    assert len(hook.posted) == 1
    assert one.delivered == []


def test_without_a_line_for_persons_a_broadcast_counts_and_says_whose_server_it_is(
    desk: OpenDesk, hook: Webhook
) -> None:
    one = desk(f"json://{hook.address}/all")
    assert one.tried("ada@example.org", "<!channel>")
    assert len(one.delivered) == 2
    assert [posted.body["title"] for posted in hook.posted] == [
        "ada(at)example.org: Your server will be stopped in 15 minutes",
        "(!channel): Your server will be stopped in 15 minutes",
    ]


def test_a_retry_does_not_send_again_what_a_target_took(
    desk: OpenDesk, sink: SmtpSink, hook: Webhook
) -> None:
    sink.refuses = lambda _address: True
    one = desk(f"json://{hook.address}/all", suffixed(sink))
    one.start()
    one.tell("ada")
    sink.wait_asked(4)
    sink.refuses = lambda _address: False
    one.wait(lambda: bool(one.delivered))
    assert (len(hook.posted), len(sink.mails)) == (1, 1)


def test_after_a_success_no_failed_target_is_tried_again(
    desk: OpenDesk, sink: SmtpSink, hook: Webhook
) -> None:
    hook.status = 500
    one = desk(f"json://{hook.address}/all", suffixed(sink))
    assert one.tried("ada")
    assert one.tried("grace")
    assert len(hook.posted) == len(sink.mails) == 2
    assert one.counted == {(DUE, SENT): 2}


def test_that_a_server_will_be_stopped_is_tried_until_it_is_delivered(
    desk: OpenDesk, sink: SmtpSink
) -> None:
    sink.refuses = lambda _address: True
    one = desk(suffixed(sink))
    one.start()
    key = one.tell("ada")
    sink.wait_asked(2 * ATTEMPTS_AFTERWARDS + 1)
    assert one.delivered == []
    sink.refuses = lambda _address: False
    one.wait(lambda: one.delivered == [key])
    assert len(sink.mails) == 1
    assert one.notifier.problem(key) is None
    assert one.notifier.undelivered().count == 0


def test_that_a_server_was_stopped_is_tried_three_times(desk: OpenDesk, sink: SmtpSink) -> None:
    sink.refuses = lambda _address: True
    one = desk(suffixed(sink))
    one.start()
    one.tell("ada", event=STOPPED)
    one.wait(lambda: one.counted[STOPPED, FAILED] == 3)
    one.tell("grace", event=STOPPED)  # is tried after anything that was left of the first
    one.wait(lambda: one.counted[STOPPED, FAILED] == 6)
    assert sink.asked == ["ada@example.org"] * 3 + ["grace@example.org"] * 3


def test_what_is_cancelled_is_not_sent_any_more(desk: OpenDesk, sink: SmtpSink) -> None:
    sink.refuses = lambda _address: True
    one = desk(suffixed(sink))
    one.start()
    key = one.tell("ada")
    sink.wait_asked(2)
    one.notifier.cancel(key)
    sink.refuses = lambda _address: False
    assert one.tried("grace")
    assert [mail.recipients for mail in sink.mails] == [["grace@example.org"]]
    assert one.delivered == [("grace", "")]


def test_what_is_cancelled_during_an_attempt_goes_to_no_other_target(
    desk: OpenDesk, sink: SmtpSink, hook: Webhook
) -> None:
    hook.answers.clear()
    one = desk(f"json://{hook.address}/all", suffixed(sink))
    one.start()
    key = one.tell("ada")
    hook.wait_for(1)
    one.notifier.cancel(key)
    hook.answers.set()
    assert one.tried("grace")
    assert [mail.recipients for mail in sink.mails] == [["grace@example.org"]]
    assert one.delivered == [("grace", "")]


def test_what_was_sent_before_it_was_cancelled_is_counted(
    desk: OpenDesk, sink: SmtpSink, hook: Webhook
) -> None:
    hook.answers.clear()
    one = desk(suffixed(sink), f"json://{hook.address}/all")
    one.start()
    key = one.tell("ada")
    hook.wait_for(1)
    one.notifier.cancel(key)
    hook.answers.set()
    one.wait(lambda: one.counted == {(DUE, SENT): 1})
    assert one.delivered == []


def test_the_same_notice_is_told_once_while_it_waits(desk: OpenDesk, sink: SmtpSink) -> None:
    one = desk(suffixed(sink))
    one.tell("ada")
    one.tell("ada")
    assert one.tried("ada")
    assert len(sink.mails) == 1


def test_a_mail_server_that_is_down_is_waited_for(desk: OpenDesk) -> None:
    with SmtpSink() as sink:
        url, port = suffixed(sink), sink.port
    one = desk(url)
    one.start()
    one.tell("ada")
    one.wait(lambda: one.counted[DUE, FAILED] >= 2)
    with SmtpSink(port) as sink:
        assert [mail.recipients for mail in sink.wait_for(1)] == [["ada@example.org"]]
        one.wait(lambda: bool(one.delivered))


def test_a_target_that_hangs_does_not_stop_the_others(
    desk: OpenDesk, sink: SmtpSink, hook: Webhook
) -> None:
    hook.answers.clear()
    pace = Pace(between=0, patience=3.0, slow=0.1, first_pause=0.02, longest_pause=0.05, look=0.02)
    one = desk(f"json://{hook.address}/all", suffixed(sink), pace=pace)
    assert one.tried("ada", "grace", "linus")
    assert len(sink.mails) == 3
    assert len(hook.posted) == 1  # and nothing is sent to it meanwhile


def test_a_target_that_failed_slowly_rests(desk: OpenDesk, sink: SmtpSink, hook: Webhook) -> None:
    hook.status = 500
    pace = Pace(between=0, slow=0, first_pause=3600, longest_pause=3600, look=0.02)
    one = desk(f"json://{hook.address}/{{user}}", suffixed(sink), pace=pace)
    sink.refuses = lambda address: address.startswith("grace")
    assert not one.tried("ada", "grace")
    assert len(hook.posted) == 1
    assert "line 1: not tried again yet: " in str(one.notifier.problem(("grace", "")))


def test_what_could_not_be_tried_counts_as_no_attempt(desk: OpenDesk, hook: Webhook) -> None:
    """A short outage, in which a target rests, would use up the attempts of many."""
    hook.status = 500
    pace = Pace(between=0, slow=0, first_pause=3600, longest_pause=3600, look=0.02)
    one = desk(f"json://{hook.address}/{{user}}", pace=pace)
    for user in ("ada", "grace", "linus"):
        one.tell(user, event=STOPPED)
    one.start()
    assert not one.notifier.drain(PATIENCE)
    assert all(one.notifier.problem((user, "")) for user in ("ada", "grace", "linus"))
    assert one.notifier.undelivered().count == 0  # no stop waits for them
    assert one.counted == {(STOPPED, FAILED): 1}


def test_what_was_taken_too_late_is_not_sent_twice(desk: OpenDesk, hook: Webhook) -> None:
    hook.answers.clear()
    pace = Pace(between=0, patience=0.2, first_pause=0.02, longest_pause=0.05, look=0.02)
    one = desk(f"json://{hook.address}/{{user}}", pace=pace)
    one.start()
    key = one.tell("ada")
    while "an earlier delivery has not ended yet" not in str(one.notifier.problem(key)):
        one.stopping.wait(0.01)
    hook.answers.set()
    one.wait(lambda: one.delivered == [key])
    assert len(hook.posted) == 1


def test_telling_and_ending_wait_for_nothing(desk: OpenDesk, hook: Webhook) -> None:
    """While a delivery hangs; and no thread keeps the process from ending."""
    hook.answers.clear()
    one = desk(f"json://{hook.address}/{{user}}")
    one.start()
    one.tell("ada")
    hook.wait_for(1)
    one.tell("grace")
    one.notifier.cancel(("grace", ""))
    assert one.notifier.undelivered().count == 0
    threads = [each for each in threading.enumerate() if each.name in ("notifier", "notice")]
    assert threads
    assert all(each.daemon for each in threads)
    hook.answers.set()


def test_too_many_that_tell_of_stops_push_out_the_oldest(
    desk: OpenDesk, sink: SmtpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MOST_AFTERWARDS", 2)
    one = desk(suffixed(sink))
    for user in ("a1", "a2", "a3", "a4"):
        one.tell(user, event=STOPPED)
    one.tell("due")
    one.start()
    assert not one.notifier.drain(PATIENCE)
    assert [mail.recipients for mail in sink.mails] == [
        [f"{user}@example.org"] for user in ("a3", "a4", "due")
    ]
    assert one.counted == {(STOPPED, FAILED): 2, (STOPPED, SENT): 2, (DUE, SENT): 1}


def test_words_are_made_at_each_attempt(desk: OpenDesk, sink: SmtpSink) -> None:
    sink.refuses = lambda _address: True
    one = desk(suffixed(sink))
    one.start()
    words = (Words(f"attempt {number}", "x") for number in range(1, 1000))
    one.notifier.tell(Notice(DUE, "ada", "", "key", lambda: next(words)), lambda: one.took("key"))
    sink.wait_asked(3)
    sink.refuses = lambda _address: False
    assert int(sink.wait_for(1)[0].subject.removeprefix("attempt ")) >= 3


def test_a_changed_file_is_used_and_a_broken_one_keeps_the_previous(
    desk: OpenDesk, sink: SmtpSink, logged: io.StringIO
) -> None:
    one = desk("json://127.0.0.1:9/{user}")
    one.start()
    one.tell("ada")
    one.wait(lambda: one.counted[DUE, FAILED] >= 1)
    one.write("# now by mail", suffixed(sink))
    sink.wait_for(1)
    one.write("mailto://hub:s3cretword@", "x")
    while one.file.error is None:
        one.stopping.wait(0.01)
    assert "line 1" in one.file.error
    one.tell("grace")
    sink.wait_for(2)
    assert "s3cretword" not in logged.getvalue()
    assert "event=notify_file_invalid" in logged.getvalue()
    assert "event=notify_file_reloaded" in logged.getvalue()


def test_no_url_and_no_secret_is_in_the_log(
    desk: OpenDesk, sink: SmtpSink, hook: Webhook, logged: io.StringIO
) -> None:
    hook.status = 404
    sink.refuses, sink.refusal = lambda _address: True, "550 not with T0ken1234567"
    secrets = ("pa55w/rd", "pa55w%2Frd", "T0ken1234567", "h3adertoken")
    lines = [
        f"mailto://hub:pa55w%2Frd@{sink.address}/?from=hub@example.org&to={{user}}@example.org",
        f"json://{hook.address}/services/T0ken1234567/{{user}}?+Authorization=h3adertoken",
        f"{suffixed(sink)}&+X-Token=T0ken1234567",
        "json://hub:pa55w%2Frd@127.0.0.1:9/services/T0ken1234567/{user}",
        f"json://hub:pa55w%2Frd@{hook.address}/T0ken1234567",
    ]
    one = desk(*lines, pace=ONCE)
    one.tried("ada", "mallory@evil.example.com")
    text = logged.getvalue()
    assert text.count("event=notification_failed") >= 4
    assert "(550, b'not with ***')" in text
    assert "://" not in text
    for secret in secrets:
        assert secret not in text
        assert secret not in str(one.notifier.problem(("ada", "")))
    for line in lines:
        assert one.file.mask(f"x {line} y").count("***") >= 1
        assert not any(secret in one.file.mask(line) for secret in secrets)
    assert text.count("\n") == text.count("ts=")  # nothing else was printed
