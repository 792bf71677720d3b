"""The embedded demo: a real JupyterHub, simulated people, and the sidecar at work on it."""
