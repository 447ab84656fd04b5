"""Plans, their rules and the what-if bar."""
