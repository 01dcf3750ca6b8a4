"""Background work: one supervisor for all jobs, leases for jobs that only one process may do, followers of ledgers."""
