"""`python -m hub_idle_exporter` is the same as `hub-idle-exporter`."""

from . import parent  # noqa: F401 - first: it notes who started us, who may soon be gone
from .cli import main

if __name__ == "__main__":
    main()
