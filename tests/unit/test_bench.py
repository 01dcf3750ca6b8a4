"""What of the benchmark can be wrong without its being run."""

import json

import pytest

from bench import ghz, suite, table
from bench.lockstep import Timing
from bench.measured import Series, compare, highest_rate
from bench.suite import By, Load, Ratio, Scenario

_FAST, _SLOW, _LIMIT = (
    Load(by=By.GRPC, batch=100, callers=64),
    Load(by=By.GRPC, batch=100, callers=8),
    Load(by=By.LIMIT, batch=4_000),
)


def _series(load: Load, *rates: float) -> Series:
    series = Series(load)
    for rate in rates:
        series.add(Timing(events=100, seconds=100 / rate, cpu_seconds=0.5), {"generator": 0.5}, None)
    return series


@pytest.mark.parametrize(
    ("name", "batch"), [("single", 0), ("batch-1", 1), ("batch-10", 10), ("batch-100", 100), ("batch-1000", 1_000)]
)
def test_configurations_of_ghz_are_up_to_date(name: str, batch: int) -> None:
    content = (ghz.FOLDER / f"{name}.json").read_text(encoding="utf-8")
    assert json.loads(content) == ghz.configuration(batch), "run python -m bench.ghz"


@pytest.mark.parametrize("batch", [0, *ghz.BATCHES])
def test_every_event_of_ghz_has_a_key_of_its_own_in_every_call(batch: int) -> None:
    data = ghz.configuration(batch)["data"]
    keys = [event["idempotency_key"] for event in (data["events"] if batch else [data["event"]])]
    assert len(set(keys)) == max(batch, 1)
    assert all("{{.UUID}}" in key for key in keys)


@pytest.mark.parametrize("scenarios", [suite.quick(), suite.everything()], ids=["quick", "all"])
def test_scenarios_hold_what_their_ratios_are_of(scenarios: list[Scenario]) -> None:
    assert len({scenario.name for scenario in scenarios}) == len(scenarios)
    for scenario in scenarios:
        assert len(set(scenario.loads)) == len(scenario.loads)
        for ratio in scenario.ratios:
            assert {*ratio.over, *ratio.under} <= set(scenario.loads)


def test_a_scenario_without_a_tool_keeps_what_does_not_need_it() -> None:
    (scenario, *_) = suite.quick()
    without = scenario.without({By.REST})
    assert {load.by for load in scenario.loads} - {load.by for load in without.loads} == {By.REST}
    assert len(without.ratios) == len(scenario.ratios) - 1


def test_a_ratio_is_of_the_fastest_loads_round_by_round() -> None:
    all_series = {
        one.load: one for one in (_series(_FAST, 60, 50, 70), _series(_SLOW, 90, 10, 10), _series(_LIMIT, 100, 50, 100))
    }
    ratio = Ratio(name="", over=(_SLOW, _FAST), under=(_LIMIT,), target=0.8)
    compared = compare(ratio, all_series)
    assert compared.over.load == _FAST
    assert compared.by_round == pytest.approx([0.6, 1.0, 0.7])
    assert compared.value == pytest.approx(0.7)
    assert compared.verdict == "short"


def test_half_load_is_half_of_the_fastest_of_the_same_kind() -> None:
    paced = Load(by=By.GRPC, batch=100, callers=64, pace=0.5)
    all_series = [_series(_FAST, 60), _series(_SLOW, 90), _series(_LIMIT, 100), _series(paced, 500), Series(_LIMIT)]
    assert highest_rate(paced, all_series) == pytest.approx(90)


def test_a_row_says_what_each_part_spent_on_100_000_events() -> None:
    lines = table.figures([_series(_FAST, 60, 50)]).splitlines()
    assert len(lines) == 3
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[:7] == ["gRPC, lean driver", "100", "64", "", "55", "50", "60"]
    assert cells[9] == "500.00"
