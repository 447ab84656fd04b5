"""Run, observe and cancel engine tasks, in worker processes or in the caller's own."""
