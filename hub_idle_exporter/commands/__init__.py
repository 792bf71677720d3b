"""Commands that poll once and print."""
