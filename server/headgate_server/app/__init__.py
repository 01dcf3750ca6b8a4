"""Connects the parts of a process, and runs it. No other floor does it.

| file | what it does |
|---|---|
| `parts.py` | makes the parts that calls work with |
| `methods.py` | gives the parts to a servicer for each service |
| `door.py` | makes what every call passes first |
| `jobs.py` | gives the parts to the background work |
| `delivery.py` | makes the job that delivers, and runs it alone |
| `server.py` | starts and ends all of this as a server |
| `at_store.py` | gives commands the methods without a server |
| `shown.py` | shows what the process is made of |
| `until_stopped.py` | runs a server, or the delivery, until a signal |
"""
