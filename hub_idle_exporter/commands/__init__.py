"""Commands that look once and print."""
