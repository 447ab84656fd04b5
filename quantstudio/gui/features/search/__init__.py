"""The search for a plan within bounds."""
