"""The dashboard and the alert rules name only metrics and labels that exist, and promtool accepts them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from headgate_server.process.metrics.catalogue import CATALOGUE, Kind, Metric

DEPLOY = Path(__file__).parents[3] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "headgate.json"
RULES = DEPLOY / "prometheus" / "alerts.yaml"
PROMTOOL = shutil.which("promtool") or DEPLOY.parent / ".build" / "promtool" / "promtool"

NAME = re.compile(r"\b(?:headgate|process|envoy)_[a-z0-9_]+\b")
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"\b((?:headgate|process)_[a-z0-9_]+)\{([^}]*)\}")
_GROUPED = re.compile(r"\b(?:by|without|on|ignoring) \(([^)]*)\)")
OF_PROMETHEUS = {"instance", "job", "le"}
"""Labels that Prometheus adds, and that of a histogram's buckets."""


def expressions() -> Iterator[str]:
    """Yield every PromQL expression of the dashboard and of the rules."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def names(text: str) -> set[str]:
    """Return the metrics that an expression names. Strings, which may contain words like them, are left out."""
    return set(NAME.findall(_STRINGS.sub('""', text))) - {"envoy_response_code_class", "envoy_http_conn_manager_prefix"}


def sampled(metric: Metric) -> set[str]:
    """Return the names of a metric's samples."""
    suffixes = ("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",)
    return {f"{metric.shown}{suffix}" for suffix in suffixes}


LABELS = {name: set(metric.labels) for metric in CATALOGUE for name in sampled(metric)}
"""The labels of each metric's samples, by their names."""


def test_every_metric_that_is_named_exists() -> None:
    found = set().union(*map(names, expressions()))
    assert len(found) > 40
    assert {name for name in found if not name.startswith("envoy_")} - LABELS.keys() == set()


def test_every_label_that_is_named_exists() -> None:
    for expression in expressions():
        for name, selectors in _SELECTOR.findall(_STRINGS.sub('""', expression)):
            wanted = set(re.findall(r"([a-z_]+) *(?:=~|!~|!=|=)", selectors))
            assert wanted <= LABELS[name] | OF_PROMETHEUS, expression
        grouped = {one.strip() for labels in _GROUPED.findall(expression) for one in labels.split(",") if one.strip()}
        offered = set().union(*(LABELS.get(name, {"envoy_response_code_class"}) for name in names(expression)))
        assert grouped <= offered | OF_PROMETHEUS, expression


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    alerts = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert len({alert["alert"] for alert in alerts}) == len(alerts)
    for alert in alerts:
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
        assert {name for name in alert["annotations"] if alert["annotations"][name].endswith(".")} == {
            "summary",
            "description",
        }


def test_no_two_panels_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells


@pytest.mark.skipif(not Path(PROMTOOL).exists(), reason="there is no promtool: `make promtool` installs and runs it")
@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "alerts.yaml"), ("check", "config", "prometheus.yaml"), ("test", "rules", "alerts.test.yaml")],
    ids=" ".join,
)
def test_promtool(arguments: tuple[str, ...]) -> None:
    ran = subprocess.run([PROMTOOL, *arguments], cwd=RULES.parent, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
