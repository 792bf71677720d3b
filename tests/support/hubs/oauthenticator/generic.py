"""As much of OAuthenticator 17.4 as the documentation relies on: `refresh_user` and its hook.

People sign in with a name, as with the Hub's own dummy. With `enable_auth_state` the true one
refuses to refresh whoever has no state of a sign-in; here nobody has one.
"""

from typing import Any

from jupyterhub.auth import DummyAuthenticator
from jupyterhub.utils import maybe_future
from traitlets import Any as AnyTrait


class OAuthenticator(DummyAuthenticator):  # type: ignore[misc]
    """Asks a hook first, which may say True, False or, for the usual way, None."""

    refresh_user_hook = AnyTrait(None, config=True)

    async def refresh_user(self, user: Any, handler: Any = None, **more: Any) -> bool:
        """Tell whether a user need not sign in again."""
        if self.refresh_user_hook is not None:
            refreshed = await maybe_future(self.refresh_user_hook(self, user, None))
            if refreshed is not None:
                return bool(refreshed)
        return False


class GenericOAuthenticator(OAuthenticator):
    """The one whose name the documentation takes as an example."""
