"""Frozen values every room shares: precision, layers, recipe, statistics, results, events, errors."""
