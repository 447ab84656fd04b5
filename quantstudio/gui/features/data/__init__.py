"""Choosing data, and trusting files that are programs."""
