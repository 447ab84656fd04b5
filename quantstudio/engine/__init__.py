"""Everything that computes; imported by the worker and the command line, never by the window."""
