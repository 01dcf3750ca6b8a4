"""What keeps the cost of a new event flat as the table grows: designs and settings, at two sizes of the table.

`python -m bench.growth designs` compares ways to keep keys unique, `settings` those of the server, `probes` the look-up
alone, `filters` the filters by themselves. The first run loads ten million rows (about five minutes, and 6 GB for each
design); later ones find them in the folder, where they have grown by what was measured. Every round takes the windows
in the other order; ratios are to the first design or setting.
"""

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvloop

from bench import table
from bench.growth import filters, load, report
from bench.growth.cluster import Cluster
from bench.growth.designs import Design, Guarded, Hashed, Keys, Rebuilt, Short, TenantHashed, Unprobed, Uuid
from bench.growth.generations import Filtered, Generations
from bench.growth.measure import Window, prepared, turn
from bench.growth.probe import probes

_DESIGNS: Mapping[str, type[Design]] = {
    "base": Design,
    "unprobed": Unprobed,
    "rebuilt": Rebuilt,
    "uuid": Uuid,
    "short": Short,
    "hash": Hashed,
    "tenant": TenantHashed,
    "guarded": Guarded,
    "keys": Keys,
    "generations": Generations,
    "filtered": Filtered,
}

_SETTINGS: Mapping[str, dict[str, str]] = {
    "as PostgreSQL has them": {},
    "max_wal_size 8 GB": {"max_wal_size": "8GB", "checkpoint_timeout": "15min"},
    "wal_compression pglz": {"wal_compression": "pglz"},
    "shared_buffers 1 GB": {"shared_buffers": "1GB"},
    "shared_buffers 2 GB": {"shared_buffers": "2GB"},
    "shared_buffers 2 GB, max_wal_size 8 GB": {
        "shared_buffers": "2GB",
        "max_wal_size": "8GB",
        "checkpoint_timeout": "15min",
    },
}


_QUIET = {"autovacuum": "off"}
"""It comes once in some millions of events, to one window and not to another."""


class _Bench:
    """A cluster with loaded databases, and how to measure in it."""

    def __init__(self, options: argparse.Namespace):
        self._cluster = Cluster(options.folder)
        self._options = options

    def designs(self, names: Sequence[str]) -> str:
        """Measure designs at every size of the table, under the server's own settings."""
        subjects = [(name, events) for events in self._options.events for name in names]
        self._make(subjects)
        windows: dict[tuple[str, int], list[Window]] = {subject: [] for subject in subjects}
        with self._cluster.running(_QUIET) as server:
            for number in range(self._options.rounds):
                order = subjects[::-1] if number % 2 else subjects
                for subject, window in zip(order, uvloop.run(self._round(server, order)), strict=True):
                    windows[subject].append(window)
        return "\n\n".join(
            f"{events:,} rows:\n\n" + report.windows({_DESIGNS[name].name: windows[name, events] for name in names})
            for events in self._options.events
        )

    def settings(self, names: Sequence[str]) -> str:
        """Measure settings of the server at the largest size, for each of these designs."""
        subjects = [(name, max(self._options.events)) for name in names]
        self._make(subjects)
        windows: dict[str, list[Window]] = {}
        for number in range(self._options.rounds):
            settings = list(_SETTINGS)
            for setting in reversed(settings) if number % 2 else settings:
                with self._cluster.running(_QUIET | _SETTINGS[setting]) as server:
                    found = uvloop.run(self._round(server, subjects))
                for name, window in zip(names, found, strict=True):
                    windows.setdefault(f"{_DESIGNS[name].name}: {setting}", []).append(window)
        return report.windows(dict(sorted(windows.items(), key=lambda item: item[0].partition(":")[0])))

    def probes(self, names: Sequence[str]) -> str:
        """Measure the look-up alone, at the largest size of the table."""
        events = max(self._options.events)
        self._make([(name, events) for name in names])
        rows = [["look-up, µs a key", "new", "stored"]]
        with self._cluster.running(_QUIET):
            for name in names:
                url, design = self._cluster.url(_database(name, events)), _DESIGNS[name]()
                with turn(self._options.lock):
                    found = uvloop.run(probes(url, design, events, self._options.group))
                rows.append([design.name, *(f"{value:.1f}" for value in found)])
        return table.markdown(rows, left=(0,))

    async def _round(self, server: int, subjects: Sequence[tuple[str, int]]) -> list[Window]:
        ready = []
        for name, events in subjects:
            design, url = _DESIGNS[name](), self._cluster.url(_database(name, events))
            self._cluster.read(await load.value(url, "SELECT pg_relation_filepath($1)", design.index))
            ready.append(await prepared(url, design, self._options.window, self._options.group))
        with turn(self._options.lock):
            return [await one.run(server) for one in ready]

    def _make(self, subjects: Sequence[tuple[str, int]]) -> None:
        """Make the databases that are not there yet."""
        with self._cluster.running(load.LOADING):
            for name, events in subjects:
                asyncio.run(load.make(self._cluster.url, _database(name, events), events, _DESIGNS[name].change))


def _database(name: str, events: int) -> str:
    # Only the statements differ.
    return f"{'base' if name == 'unprobed' else name}_{events}"


def main() -> None:
    """Run what the command line asks for, and print Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("what", choices=("designs", "settings", "probes", "filters"))
    parser.add_argument("names", nargs="*", choices=[*_DESIGNS, []], help="designs; all, or base and filtered")
    parser.add_argument("--folder", type=Path, default=load.default_folder(), help="where the cluster is kept")
    parser.add_argument("--events", type=int, nargs="+", default=[200_000, 10_000_000], help="sizes of the table")
    parser.add_argument("--window", type=int, default=400_000, help="events of one measurement")
    parser.add_argument("--group", type=int, default=4_000, help="events of a transaction")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lock", type=Path, help="a file to lock while something is timed")
    options = parser.parse_args()
    if options.what == "filters":
        print(table.markdown(filters.trial(), left=()))
    elif options.what == "designs":
        print(_Bench(options).designs(options.names or list(_DESIGNS)))
    elif options.what == "probes":
        # The look-up of a table of keys stores what it looks for, and the unprobed design has none.
        named = options.names or list(_DESIGNS)
        print(_Bench(options).probes([name for name in named if name not in ("keys", "unprobed")]))
    else:
        print(_Bench(options).settings(options.names or ["base", "filtered"]))


if __name__ == "__main__":
    main()
