"""`python -m hub_idle_exporter` is the same as `hub-idle-exporter`."""

from .cli import main

if __name__ == "__main__":
    main()
