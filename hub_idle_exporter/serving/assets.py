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


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{b64encode(digest).decode()}'"


CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_hash(SCRIPT)}",
        f"style-src {_hash(STYLE)}",
        "connect-src 'self'",  # the script reads the page again
        "img-src data:",  # the icon
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
