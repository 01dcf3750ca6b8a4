"""PostgreSQL with Citus: each workspace's rows are on one node of several."""
