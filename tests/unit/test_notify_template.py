"""Where names may stand in an Apprise URL, and which names may."""

import pytest

from hub_idle_exporter.notifying.template import TargetError, Template

USABLE = [
    "mailto://hub:secret@mail.example.org?from=hub@example.org&to={user}@example.org",
    "mailto://mail.example.org/{user}%40example.org",
    "mailto://mail.example.org?to={user}",
    "json://host:8080/tell/{user}/{server}?:person={user}",
    "slack://TOKEN/a/b/@{user}",
    "json://host/all",
]
UNSAFE = [
    "{user}://host/",
    "json://{user}/",
    "json://{user}.example.org/",
    "json://host:{user}/",
    "mailto://{user}@example.org",
    "mailto://hub:{user}@example.org?to=x@example.org",
    "mailto://host?from={user}@example.org&to=x@example.org",
    "mailto://host?smtp={user}&to=x@example.org",
    "mailto://host?to={user}@example.org,x@example.org",
    "mailto://host?to={user}@example.org%2Cx@example.org",
    "mailto://host?to={user}@example.org%20x@example.org",
    "mailto://host?{user}=x",
    "json://host/{user}?+X-Person={user}",
    "json://host/{user}-{server}",
    "mailto://host?to={user}@example.org&cc=x@example.org",
    "mailto://host?to={user}@example.org&BCC=x@example.org",
    "mailto://host?to={User}@example.org",
    "mailto://host?to=${USER}@example.org",
    "mailto://host?to={user@example.org",
    "mailto://host?to={}@example.org",
    "no URL {user}",
    "",
]


@pytest.mark.parametrize("text", USABLE)
def test_a_name_chooses_a_path_or_a_recipient(text: str) -> None:
    filled = Template(text).filled("ada", "gpu")
    assert filled == text.replace("{user}", "ada").replace("{server}", "gpu")


@pytest.mark.parametrize("text", UNSAFE)
def test_a_name_chooses_nothing_else(text: str) -> None:
    with pytest.raises(TargetError):
        Template(text)


def test_a_mail_address_is_put_in_only_where_nothing_follows() -> None:
    whole, suffixed = Template("mailto://h?to={user}"), Template("mailto://h?to={user}@example.org")
    assert whole.filled("ada@example.org", "") == "mailto://h?to=ada%40example.org"
    with pytest.raises(TargetError, match="name of the user has characters"):
        suffixed.filled("mallory@evil.example.com", "")


def test_subaddresses_are_put_in_only_as_whole_addresses() -> None:
    """Mail to ada+x@example.org is ada's."""
    assert "%2B" in Template("mailto://h?to={user}").filled("ada+x@example.org", "")
    for text in ("mailto://h?to={user}", "mailto://h?to={user}@example.org"):
        with pytest.raises(TargetError):
            Template(text).filled("ada+x", "")


def test_a_template_without_a_name_takes_any_user() -> None:
    assert Template("json://host/all").filled("we ird", "a,b") == "json://host/all"
