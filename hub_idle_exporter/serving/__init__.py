"""HTTP: metrics, health and the page for people."""
