"""Where jobs run: in worker processes, and one day on a cluster."""
