"""The layer table."""
