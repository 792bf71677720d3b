"""The Hub's REST API: the only place that knows its URLs and holds the token."""
