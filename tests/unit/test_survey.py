"""The short cut for large Hubs counts exactly what judging each server counts."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from hub_idle_exporter.domain.census import idle_server_seconds, judge_all, survey, take
from hub_idle_exporter.domain.model import Server, User
from hub_idle_exporter.domain.policy import Globs, Judge, Match, Policy, Rules, Spared, State
from hub_idle_exporter.domain.scopes import Granted

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LIMITS = (60.0, 900.0, 3600.0)
# Around each limit, in the future, and far off.
SECONDS = st.sampled_from([s + d for s in (0, *LIMITS, 1e6) for d in (-1e-6, 0, 1e-6, 30)])
MOMENTS = st.one_of(
    st.none(),
    SECONDS.map(lambda seconds: NOW - timedelta(seconds=seconds)),
    SECONDS.map(lambda seconds: (NOW - timedelta(seconds=seconds)).replace(tzinfo=None)),
)
SERVERS = st.builds(
    Server,
    ready=st.sampled_from([True, True, True, False]),
    pending=st.sampled_from([None, None, None, "spawn", "stop", ""]),
    started=MOMENTS,
    last_activity=MOMENTS,
    user_options=st.sampled_from([None, {}, {"profile": "gpu"}, {"profile": 3}]),
)
USERS = st.builds(
    User,
    name=st.sampled_from(["ana", "bo", "tmp-1"]),
    admin=st.sampled_from([True, False]),
    groups=st.sampled_from([(), ("staff",)]),
    servers=st.one_of(st.just(UNSET), st.dictionaries(st.sampled_from(["", "lab"]), SERVERS)),
)
MATCHES = st.sampled_from(
    [
        Match(users=Globs(["tmp-*"])),
        Match(groups=Globs(["staff"])),
        Match(named=True),
        Match(user_options=(("profile", Globs(["gpu*"])),)),
    ]
)


def policies(name: str) -> st.SearchStrategy[Policy]:
    limit = st.sampled_from(LIMITS)
    max_age = st.sampled_from([0.0, *LIMITS])
    return st.builds(Policy, st.just(name), limit, max_age, st.booleans(), MATCHES)


RULES = st.builds(
    Rules,
    st.tuples(policies("first"), policies("second"), policies("default")).flatmap(
        lambda all_three: st.sampled_from([all_three, all_three[1:], all_three[2:]])
    ),
    st.booleans(),
    st.booleans(),
)
GRANTED = st.sampled_from([Granted(), Granted.of(["delete:servers!group=staff"])])


@settings(max_examples=1000, deadline=None)
@given(st.lists(USERS, max_size=8), RULES, GRANTED)
def test_a_survey_is_the_census_of_everybody_judged(
    users: list[User], rules: Rules, granted: Granted
) -> None:
    judge, now = Judge(rules, granted), NOW.timestamp()
    judged = judge_all(judge, users, now)
    census, others = survey(judge, users, now)
    whole = take(judged, rules)
    assert census.servers == whole.servers
    assert census.candidates == whole.candidates
    assert census.policies == whole.policies
    for spread, expected in ((census.idle, whole.idle), (census.age, whole.age)):
        assert spread == expected
    assert idle_server_seconds(others, 60, 180) == idle_server_seconds(judged, 60, 180)
    # Whoever has no verdict in the survey would have been called active, and spared as in use.
    left_out = list(judged)
    for other in others:
        left_out.remove(other)
    assert all(one.verdict.state is State.ACTIVE for one in left_out)
    assert all(one.verdict.spared is Spared.IN_USE for one in left_out)
    assert not any(one.verdict.reason for one in left_out)
