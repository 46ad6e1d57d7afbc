"""What a run leaves for others to verify: a signed statement, and the checks of it."""
