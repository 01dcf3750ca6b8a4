"""Protocol buffers of Headgate, and nothing else."""
