"""Prometheus-instrumented sidecar for JupyterHub: who is idle, and with `--enforce`, no longer."""

__version__ = "0.1.0"

COMMANDS = ("check", "servers", "demo")
