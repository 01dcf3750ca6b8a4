"""The list of metrics: the conventions of its names, and the page that is written from it."""

from headgate_server.process.metrics.catalogue import BY_NAME, CATALOGUE, Kind, Merge
from tests.support import metrics_page


def test_names_follow_the_conventions() -> None:
    assert len(BY_NAME) == len(CATALOGUE) > 40
    for metric in CATALOGUE:
        assert metric.name.startswith(("headgate_", "process_")), metric.name
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket", "_ms", "_kb")), metric.name
        assert metric.means[0].isupper() or metric.means[0].isdigit(), metric.name
        assert metric.means.endswith("."), metric.name
        assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets)
        assert tuple(sorted(metric.buckets)) == metric.buckets
        assert metric.kind is Kind.GAUGE or metric.merge is Merge.SUM
        assert "workspace" not in metric.labels or metric.name == "headgate_workspace_events"


def test_the_page_has_every_metric_as_the_list_says() -> None:
    assert metrics_page.PAGE.read_text() == metrics_page.page()
