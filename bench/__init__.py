"""How fast Headgate is, as ratios to the limits of its database and of gRPC, and to a service of the usual kind.

`run` is the main program. `suite` lists the measurements: scenarios of loads. For each scenario `stage` starts the real
`parts` and gives every load its sender; the loads take turns, and `report` writes `results/`. A sender is one of the
`tools`, ghz and wrk, or a contender: a separate process that works on command (`contender`). Contenders are `limit`, a
raw loop on the database, and `driver`, which calls the product or `empty`, an RPC without any function. `peer` is a
service of the usual kind. All store the events of `workload`.
"""
