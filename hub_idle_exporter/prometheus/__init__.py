"""The Prometheus that is asked for a second opinion."""
