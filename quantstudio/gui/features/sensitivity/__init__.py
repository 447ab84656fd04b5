"""Sensitivity of every layer: strip, classes, threshold."""
