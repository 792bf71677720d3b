"""What `check` says about the page inside the Hub; most of it no service can see of itself."""

from collections.abc import Mapping
from importlib.util import find_spec

from ..domain.poll_state import DEFAULT_SERVICE, PollState
from ..service_port import is_wanted
from .report import Report


def check_page(report: Report, state: PollState, environ: Mapping[str, str]) -> None:
    """Report what the page needs, if there is one or people may keep servers there."""
    has_page = is_wanted([], environ)
    if not has_page and not any(policy.keep_max for policy in state.rules.policies):
        return
    if find_spec("jupyterhub") is None:
        report.bad(
            "nobody can sign in to the page inside the Hub: this Python lacks the package "
            "jupyterhub. Run: pip install 'hub-idle-exporter[hub]'"
        )
    name = (state.identity.name if state.identity else "") or DEFAULT_SERVICE
    report.note(
        "the page inside the Hub needs this in jupyterhub_config.py, which cannot be seen from "
        "here:"
    )
    report.more(f'in the entry of the service {name}: "url" (with a free port), "command",')
    report.more('"oauth_no_confirm": True, "display": True')
    report.more("in load_roles, since without this role only administrators may use it:")
    report.more(f'{{"name": "user", "scopes": ["self", "access:services!service={name}"]}}')
