"""Jobs and the log."""
