"""How Ardiq grows on one server: curves over workers, queued and scheduled tasks, queues, and members of a queue."""
