"""The application without a screen: what is open, edits, findings, runs; also the public Python API."""
