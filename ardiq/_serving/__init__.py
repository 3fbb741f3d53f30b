"""Several queues in one worker."""
