"""The page's style sheet and script, and the policy that lets a browser use these and nothing else.

Both stand in the page itself. The policy names them by their hashes, so that whatever else gets
into the page, a name of a server above all, can neither run nor style anything.
"""

import hashlib
from base64 import b64encode
from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"
STYLE = (TEMPLATES / "page.css").read_text("utf-8")
SCRIPT = (TEMPLATES / "page.js").read_text("utf-8")


def hash_of(text: str) -> str:
    """Return what names a style sheet or a script in the policy."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{b64encode(digest).decode()}'"


CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {hash_of(SCRIPT)}",
        f"style-src {hash_of(STYLE)}",
        "connect-src 'self'",  # the script reads the page again
        "img-src data:",  # the icon
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
