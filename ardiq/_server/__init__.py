"""One server, seen from one process."""
