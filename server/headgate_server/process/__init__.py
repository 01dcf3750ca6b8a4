"""What a process of ours has: a clock, a log, counters, children."""
