"""Prometheus exporter for idle JupyterHub servers; with `--enforce` it also stops them."""

__version__ = "1.0.0"

COMMANDS = ("check", "servers", "demo")
