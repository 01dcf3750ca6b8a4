"""The parts of every process of ours: a clock, a log, metrics, child processes."""
