"""The store on PostgreSQL, for several server processes on one database."""
