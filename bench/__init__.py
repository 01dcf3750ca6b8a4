"""How fast Headgate is, as ratios to what its database and gRPC allow and to what one would otherwise write.

`run` is what is run. `suite` says what is measured: scenarios of loads. For each scenario `stage` starts the real
`parts` and gives every load its sender; the loads take turns, and `report` writes `results/`. A sender is one of the
`tools`, ghz and wrk, or a contender: a process of its own that works when it is told to (`contender`). Contenders are
`limit`, a raw loop on the database, and `driver`, which calls the product or `empty`, an RPC with nothing behind it.
`peer` is a service as one would otherwise write it. All store the events of `workload`.
"""
