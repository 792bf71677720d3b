"""From a candidate to a stopped server: look again, ask, stop, verify."""
