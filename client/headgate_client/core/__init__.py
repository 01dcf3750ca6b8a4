"""What a client decides, as values: no channel, no thread, no event loop, no clock, no file."""
