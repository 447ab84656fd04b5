"""What each target can run, and how well."""
