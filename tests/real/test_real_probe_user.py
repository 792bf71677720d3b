"""Nobody can be the prober: what docs/probe-user.md says to configure, on real Hubs.

The configuration is the documentation's own text. The older Hubs take part in `make test-all`.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
import requests
from conftest import older_hub_python
from documentation import block
from real_hub import PROBER, RealHub
from sign_in import Browser

from hub_idle_exporter.demo import launch
from hub_idle_exporter.demo.launch import LaunchError, LocalHub

PAGE = "docs/probe-user.md"
DEMO_CONFIG = Path(launch.__file__).with_name("jupyterhub_config.py")
ROLES = block("docs/install.md", "load_roles")
HOOK = block(PAGE, "post_auth_hook")
KEEP = block(PAGE, "refresh_user_hook")
SUBCLASS = block(PAGE, "async def refresh_user")
PASSWORD = "of all people"
ANA, MALLORY = "ana", "mallory"
MINTED = {"scopes": [f"access:servers!server={ANA}/"], "expires_in": 60}

# Only some people are let in, and everybody has the password; `alias` is mapped to the prober.
PEOPLE = f"""
c.Authenticator.allow_all = False
c.Authenticator.allowed_users = {{{ANA!r}, {MALLORY!r}, "old-ana", "renamed"}}
c.Authenticator.username_map = {{"alias": {PROBER!r}}}
c.DummyAuthenticator.password = {PASSWORD!r}
"""
# Before 5.0 the Hub does not start unless all who have a role are allowed.
ALLOWED_TOO = f"c.Authenticator.allowed_users |= {{{PROBER!r}, 'token-owner'}}\n"
# Refuses one, lets nobody in as another, and gives two people other names.
EARLIER = """
from tornado.web import HTTPError

{keyword} earlier(authenticator, handler, auth_model):
    if auth_model["name"] == "mallory":
        raise HTTPError(403, "not you")
    others = {{"old-ana": "ana", "renamed": "Idle-Prober"}}
    return auth_model | {{"name": others.get(auth_model["name"], auth_model["name"])}}

c.Authenticator.post_auth_hook = earlier
"""
OAUTH = """
c.JupyterHub.authenticator_class = "oauthenticator.generic.GenericOAuthenticator"
c.Authenticator.auth_refresh_strict = True
"""


class DocumentedHub(RealHub):
    """A Hub with the service and the roles of docs/install.md, and what `more` configures."""

    def __init__(self, directory: Path, python: Path, more: str) -> None:
        self.service_token = secrets.token_hex(32)
        super().__init__(directory, services=(), prober=False, python=python)
        self.configure(more)

    def configure(self, more: str) -> None:
        """Configure it; for the next start."""
        people = PEOPLE + (ALLOWED_TOO if self.version < (5, 0) else "")
        roles = ROLES.replace("THE TOKEN", self.service_token)
        self.extra_config = people + roles + more

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def browser(self) -> Browser:
        """Give a browser in which nobody is signed in."""
        return Browser(self.public_url)

    def sign_in(self, name: str) -> int:
        """Sign in with the password in a new browser; return the status of the answer."""
        return self.browser().sign_in(name, PASSWORD)

    def mint(self) -> requests.Response:
        """Make a token of the prober for one server, as the exporter does."""
        return self.api("POST", f"/users/{PROBER}/tokens", MINTED, token=self.service_token)

    def token_by_password(self, name: str, owner: str = PROBER) -> requests.Response:
        """Ask for a token of `owner` as whoever has a name and the password."""
        body = {"auth": {"username": name, "password": PASSWORD}}
        return requests.post(f"{self.api_url}/users/{owner}/tokens", json=body, timeout=30)

    def works_with(self, token: str) -> bool:
        """Tell whether the Hub takes a token."""
        return self.api("GET", "/user", token=token).status_code == 200


OLDER = [pytest.param(version, marks=pytest.mark.slow("older Hubs")) for version in "543"]
StartHub = Callable[[str], DocumentedHub]


@pytest.fixture(scope="module", params=["", *OLDER], ids=lambda version: version or "newest")
def python(request: pytest.FixtureRequest, hub_python: Path) -> Path:
    """The interpreter of the Hub."""
    return older_hub_python(request.param) if request.param else hub_python


@pytest.fixture
def start_hub(tmp_path: Path, python: Path) -> Iterator[StartHub]:
    """Start Hubs with a configuration of their own."""
    numbers = count(1)
    with ExitStack() as stack:

        def start(more: str) -> DocumentedHub:
            hub = DocumentedHub(tmp_path / f"hub-{next(numbers)}", python, more)
            return stack.enter_context(hub)

        yield start


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, python: Path) -> Iterator[DocumentedHub]:
    """A Hub configured as documented."""
    with DocumentedHub(tmp_path_factory.mktemp("documented-hub"), python, HOOK) as hub:
        yield hub


# ---- the hook -----------------------------------------------------------------------------------


def test_without_the_hook_whoever_has_the_probers_name_has_every_server(
    start_hub: StartHub,
) -> None:
    """Why the hook is needed: nobody has allowed this user (but before 5.0)."""
    hub = start_hub("")
    assert hub.sign_in(PROBER) == 302
    assert hub.sign_in("nobody else") != 302
    hub.start_server(ANA)
    token = hub.token_by_password(PROBER).json()["token"]
    assert hub.api("DELETE", f"/users/{ANA}/server", token=token).status_code == 204
    assert not hub.server(ANA)["ready"]


@pytest.mark.parametrize("name", [PROBER, "Idle-Prober", "IDLE-PROBER", "alias"])
def test_nobody_signs_in_as_the_prober(hub: DocumentedHub, name: str) -> None:
    browser = hub.browser()
    assert browser.sign_in(name, PASSWORD) == 403
    assert not browser.is_signed_in()
    assert hub.token_by_password(name).status_code == 403


def test_other_people_sign_in_as_before(hub: DocumentedHub) -> None:
    browser = hub.browser()
    assert browser.sign_in(ANA, "a wrong password") in (200, 403)  # by the Hub's version
    assert not browser.is_signed_in()
    assert browser.sign_in(ANA, PASSWORD) == 302
    assert browser.is_signed_in()
    assert hub.token_by_password(ANA, owner=ANA).status_code == 201


def test_the_exporter_mints_with_the_hook(hub: DocumentedHub) -> None:
    minted = hub.mint()
    assert minted.status_code == 201
    assert hub.works_with(minted.json()["token"])


@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_an_earlier_hook_still_runs_and_refuses(start_hub: StartHub, keyword: str) -> None:
    """Pasted twice it does no harm either."""
    hub = start_hub(EARLIER.format(keyword=keyword) + HOOK + HOOK)
    assert hub.sign_in(MALLORY) == 403
    assert hub.sign_in(PROBER) == 403
    assert hub.sign_in("renamed") == 403, "the earlier hook makes it the prober"
    assert hub.token_by_password("renamed").status_code == 403
    assert hub.sign_in("old-ana") == 302
    assert hub.token_by_password("old-ana", owner=ANA).status_code == 201


def test_an_earlier_hook_that_lets_nobody_in_still_does(start_hub: StartHub) -> None:
    nobody = "c.Authenticator.post_auth_hook = lambda *_: None\n"
    hub = start_hub(nobody + HOOK)
    assert hub.sign_in(ANA) in (200, 403)
    assert hub.token_by_password(ANA, owner=ANA).status_code == 403


def test_a_hook_on_the_authenticators_class_or_set_later_replaces_nothing(
    start_hub: StartHub,
) -> None:
    own = EARLIER.format(keyword="def").replace("c.Authenticator", "c.DummyAuthenticator")
    later = "c.Authenticator.post_auth_hook = lambda *given: given[-1]\n"
    hub = start_hub(HOOK + own + later)
    assert hub.sign_in(PROBER) == 403
    assert hub.sign_in("renamed") == 403, "the hook makes it the prober"
    assert hub.sign_in(MALLORY) == 403, "by the hook"
    assert hub.sign_in(ANA) == 302


# As MySQL's and MariaDB's usual collations compare.
WITHOUT_ACCENTS = """
import unicodedata
from jupyterhub import orm

exactly = orm.User.find.__func__

def find(cls, db, name):
    letters = unicodedata.normalize("NFD", name)
    return exactly(cls, db, "".join(one for one in letters if not unicodedata.combining(one)))

orm.User.find = classmethod(find)
c.Authenticator.allowed_users |= {"ïdle-prober", "idlé-prober"}
"""


def test_a_name_by_which_the_database_finds_the_prober_is_refused(start_hub: StartHub) -> None:
    hub = start_hub(HOOK + WITHOUT_ACCENTS)
    assert hub.sign_in("ïdle-prober") == 403
    assert hub.token_by_password("idlé-prober").status_code == 403
    assert hub.sign_in(ANA) == 302


@pytest.mark.slow("Hubs of their own")
def test_nobody_signs_in_as_the_demos_prober(tmp_path: Path) -> None:
    """There, and in the compose stack, everybody has the one password."""
    for name in ("exporter-token", "people-token", "password"):
        (tmp_path / name).write_text(PASSWORD.replace(" ", "-"))
    environment = {"DEMO_SECRETS": str(tmp_path), "DEMO_HOMES": str(tmp_path / "homes")}
    with LocalHub(tmp_path / "hub", DEMO_CONFIG, environment=environment) as hub:
        password = (tmp_path / "password").read_text()
        assert Browser(hub.public_url).sign_in("admin", password) == 302
        assert Browser(hub.public_url).sign_in("Idle-Prober", password) == 403


# ---- from before the hook -----------------------------------------------------------------------


@pytest.mark.slow("Hubs of their own")
def test_deleting_the_prober_once_ends_what_began_before_the_hook(start_hub: StartHub) -> None:
    hub = start_hub("")
    browser, token = hub.browser(), hub.user_token(PROBER)
    assert browser.sign_in(PROBER, PASSWORD) == 302
    hub.configure(HOOK)
    hub.restart()
    assert browser.is_signed_in(), "cookies survive the hook"
    assert hub.works_with(token), "and so do tokens"
    assert hub.api("DELETE", f"/users/{PROBER}").status_code == 204
    assert not browser.is_signed_in()
    assert hub.mint().status_code == 403, "nothing can be asked or stopped until the restart"
    hub.restart()
    assert not browser.is_signed_in()
    assert not hub.works_with(token)
    assert hub.works_with(hub.mint().json()["token"])


# ---- refresh_user -------------------------------------------------------------------------------


@pytest.mark.slow("Hubs of their own")
def test_refresh_user_makes_the_hub_refuse_the_probers_tokens(start_hub: StartHub) -> None:
    hub = start_hub(OAUTH)
    minted = hub.mint()
    assert minted.status_code == 201
    token = minted.json()["token"]
    assert hub.api("GET", "/user", token=token).status_code == 403
    assert hub.api("DELETE", f"/users/{ANA}/server", token=token).status_code == 403


def test_only_hubs_before_6_1_do_so_by_default(start_hub: StartHub) -> None:
    hub = start_hub(OAUTH.replace("True", "False"))
    assert hub.works_with(hub.mint().json()["token"]) == (hub.version >= (6, 1))


@pytest.mark.parametrize("keeps", [KEEP, SUBCLASS], ids=["hook", "subclass"])
def test_the_documented_ways_keep_the_probers_tokens(start_hub: StartHub, keeps: str) -> None:
    hub = start_hub(OAUTH + keeps)
    assert hub.works_with(hub.mint().json()["token"])
    assert not hub.works_with(hub.user_token(ANA)), "of others the authenticator is asked as ever"


# ---- its role -----------------------------------------------------------------------------------


@pytest.mark.slow("Hubs of their own")
def test_a_hub_with_pam_wants_a_system_account_for_the_prober(tmp_path: Path, python: Path) -> None:
    """From 5.0 on, at its first start; which says so."""
    only_documented = "c.JupyterHub.load_roles = c.JupyterHub.load_roles[-2:]\n"
    pam = "c.JupyterHub.authenticator_class = 'pam'\nc.Authenticator.allowed_users = set()\n"
    hub = DocumentedHub(tmp_path / "hub", python, only_documented + pam)
    if hub.version >= (5, 0):
        with pytest.raises(LaunchError, match=f"User {PROBER} does not exist on the system"):
            hub.start()
    else:
        with hub:
            assert hub.mint().status_code == 201
