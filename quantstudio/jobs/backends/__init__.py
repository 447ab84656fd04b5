"""Where jobs run: in the calling thread, in a worker process, and one day on a cluster."""
