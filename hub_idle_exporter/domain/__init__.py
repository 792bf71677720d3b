"""All decisions. Pure: no clock (times are arguments), no I/O, no log, no threads."""
