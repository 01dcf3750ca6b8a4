"""How fast Headgate is, as ratios to what its database and gRPC allow and to what one would otherwise write: figures
that hold beyond the machine they were taken on.

`run` is what is run. `suite` says what is measured: scenarios of loads. For each `stage` starts the real parts
(`parts`) and gives every load its sender; `play` lets the loads take turns and takes down what each costs (`measured`);
`report` writes `results/` (`table`, `picture`).

A sender is a load tool (`ghz`, `http` with wrk) or a contender: a process of its own that works when told to
(`lockstep`). `limit` and `sqlite_limit` are raw loops on the database; `driver` and `http_driver` are callers of the
product, and of what it is compared with: `empty`, an RPC with nothing behind it, and `peer`, a service as one would
otherwise write it. All store the same events (`workload`).

`growth` is another matter: ways to keep the cost of an event flat while the table grows.
"""
