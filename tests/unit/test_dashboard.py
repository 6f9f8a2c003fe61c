"""The dashboard for Grafana fits what is counted."""

import json
import re

from claude_coded.metrics import Metrics
from tests.support.dashboard import FILE, WIDTH, queries, source


def names() -> set[str]:
    """Return the names of all series; a histogram has three."""
    suffixes = {"counter": ["_total"], "info": ["_info"], "histogram": ["_bucket", "_count", "_sum"]}
    metrics = Metrics("1", "2", lambda: 0.0).collect()
    return {metric.name + suffix for metric in metrics for suffix in suffixes.get(metric.type, [""])}


def test_the_committed_dashboard_is_that_of_now() -> None:
    assert FILE.read_text() == source()


def test_it_asks_for_what_there_is_and_leaves_out_nothing_but_the_versions() -> None:
    asked = {name for query in queries() for name in re.findall(r"(?:claude_coded|process)_\w+", query)}
    assert asked <= names()
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked}
    ours = {re.sub(r"_(bucket|count|sum)$", "", name) for name in names() if name.startswith("claude_coded")}
    assert ours - shown == {"claude_coded_build_info", "claude_coded_workers_processes"}


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    panels = json.loads(FILE.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        assert columns[-1] < WIDTH
        cells = {(x, y) for x in columns for y in rows}
        assert not cells & taken
        taken |= cells
