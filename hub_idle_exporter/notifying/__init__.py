"""Telling people about their servers, through Apprise."""
