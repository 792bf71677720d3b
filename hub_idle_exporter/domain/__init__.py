"""Everything that is decided: pure, without clock, I/O, log or threads; times are arguments."""
