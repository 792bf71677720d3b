"""A person at the pages of a Hub, who signs in with a name and a password."""

from dataclasses import dataclass, field

import requests


@dataclass
class Browser:
    """What is kept from page to page are the cookies; `public_url` is the Hub's."""

    public_url: str
    session: requests.Session = field(default_factory=requests.Session)

    def sign_in(self, name: str, password: str) -> int:
        """Fill in the login page; return the status of the answer, 302 if let in."""
        self.session.trust_env = False
        page = f"{self.public_url}hub/login"
        self.session.get(page, timeout=30)
        form = {"username": name, "password": password}
        form["_xsrf"] = self.session.cookies.get("_xsrf") or ""  # none before 4.0
        return self.session.post(page, form, allow_redirects=False, timeout=30).status_code

    def is_signed_in(self) -> bool:
        """Tell whether the Hub shows its home page, and not the login page."""
        home = f"{self.public_url}hub/home"
        return self.session.get(home, allow_redirects=False, timeout=30).status_code == 200
