"""Running tasks: one worker of one queue."""
