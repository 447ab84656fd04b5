"""The page of the selected layer."""
