"""Work that goes on beside the calls: one supervisor for all jobs, leases for what one process may do, followers of
ledgers.
"""
