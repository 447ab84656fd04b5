"""Accuracy with uncertainty, latency, footprint, and their comparison."""
