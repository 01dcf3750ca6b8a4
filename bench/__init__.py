"""How fast Headgate is, as a ratio to what its database allows: a figure that holds beyond the machine it was taken
on.

`first_figure` is what is run. It starts the parts and lets two contenders, each in a process of its own
(`lockstep`), store the same events (`workload`): `limit`, a raw loop on the database, and `driver`, callers of the
product.
"""
