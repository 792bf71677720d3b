"""Find idle users, and delete them with every care: it cannot be undone."""
