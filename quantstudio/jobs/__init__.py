"""Run, observe and cancel engine tasks, inline or in the worker process."""
