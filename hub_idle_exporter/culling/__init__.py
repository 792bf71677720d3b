"""From a candidate to a stopped server: check again, ask, stop, verify."""
