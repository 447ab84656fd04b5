"""Data sets, transforms, metrics and segments."""
