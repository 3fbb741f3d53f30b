"""What an app asks of its queue: enqueueing, looking, changing."""
