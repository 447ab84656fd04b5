"""Where jobs run: in worker processes, in the calling thread, and one day on a cluster."""
