"""The kinds of answers on the way to a stop, in their order: after each the exporter may be paused.

Name → where the answer comes from, what was asked, and how many such answers come before it.
"""

TOKENS = "/users/idle-prober/tokens"
BEFORE_THE_STOP = {
    "list": ("hub", "GET", "/users", 0),
    "probe user": ("hub", "GET", "/users/idle-prober", 0),
    "lease": ("hub", "POST", TOKENS, 1),
    "routes": ("hub", "GET", "/proxy", 0),
    "token for asking": ("hub", "POST", TOKENS, 2),
    "kernels": ("server", "GET", "*/kernels", 0),
    "terminals": ("server", "GET", "*/terminals", 0),
    "stop token": ("hub", "POST", TOKENS, 3),
    "look": ("hub", "GET", "/users/ana", 0),
    "status": ("server", "GET", "*/status", 0),
}
AFTER_THE_STOP = {
    "DELETE": ("hub", "DELETE", "/users/ana/server", 0),
    "verification": ("hub", "GET", "/users/ana", 1),
    "old address": ("server", "GET", "*/status", 1),
}
