"""`python -m tests.support.dashboard` makes the dashboard of contrib/grafana again, from the panels here."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).parents[2] / "contrib/grafana/claude-coded.json"

WIDTH: Final = 24
"""Columns of Grafana's grid."""

SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Query:
    """What is drawn, and the name of its lines. `@` stands for the label matchers, `~` for the interval."""

    expression: str
    legend: str = ""

    @property
    def promql(self) -> str:
        """Return it with Grafana's variables."""
        chosen = '{job=~"$job",instance=~"$instance"}'
        text = self.expression.replace("@{", chosen[:-1] + ",").replace("@", chosen)
        return text.replace("~]", "$__rate_interval]")


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel of some columns; `stacked` shows parts of a whole."""

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    stacked: bool = False

    def shown(self, number: int, x: int, y: int) -> dict[str, Any]:
        """Return it as Grafana has it."""
        custom = {"fillOpacity": 20, "showPoints": "never"}
        if self.stacked:
            custom["stacking"] = {"mode": "normal"}
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "datasource": SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "fieldConfig": {"defaults": {"unit": self.unit, "min": 0, "custom": custom}, "overrides": []},
            "targets": [
                {"refId": chr(65 + n), "datasource": SOURCE, "expr": it.promql, "legendFormat": it.legend}
                for n, it in enumerate(self.queries)
            ],
        }


def rate(name: str, by: str = "", **labels: str) -> str:
    """Return the rate of a counter, of the series with these labels."""
    chosen = ",".join(f'{label}="{value}"' for label, value in labels.items())
    matching = f"@{{{chosen}}}" if chosen else "@"
    return f"sum{f' by ({by})' if by else ''} (rate(claude_coded_{name}{matching}[~]))"


def quantiles(name: str) -> list[Query]:
    """Return the median and the tail of a histogram."""
    buckets = rate(f"{name}_bucket", "le")
    return [Query(f"histogram_quantile({it}, {buckets})", f"p{round(it * 100)}") for it in (0.5, 0.9, 0.99)]


def by_phase(name: str) -> list[Query]:
    """Return the mean time by phase: together they are the mean of the whole."""
    return [Query(f"{rate(f'{name}_sum', 'phase')} / {rate(f'{name}_count', 'phase')}", "{{phase}}")]


def stat(title: str, expression: str, unit: str = "short") -> Panel:
    """Return a number of the moment."""
    return Panel(title, [Query(expression)], unit, "stat", width=4, height=4)


PANELS: Final = (
    (
        "Now",
        (
            stat("Takes turns", "min(claude_coded_ready@)"),
            stat("Turns that run", "sum(claude_coded_turns_running@)"),
            stat("Requests that wait", "sum(claude_coded_queue_length@)"),
            stat("Turns", rate("turns_total"), "reqps"),
            stat(
                "Turns that fail",
                f"({rate('turns_total', outcome='failed')} or vector(0)) / {rate('turns_total')}",
                "percentunit",
            ),
            stat("Cost, 24 hours", "sum(increase(claude_coded_cost_usd_total@[24h]))", "currencyUSD"),
        ),
    ),
    (
        "Turns",
        (
            Panel(
                "Turns by outcome",
                [Query(rate("turns_total", "outcome, reason"), "{{outcome}} {{reason}}")],
                "reqps",
                stacked=True,
            ),
            Panel("First token", quantiles("first_token_duration_seconds"), "s"),
            Panel(
                "First token, mean by what took it", by_phase("first_token_phase_seconds"), "s", stacked=True
            ),
            Panel("Whole turns", quantiles("turn_duration_seconds"), "s"),
            Panel("Whole turns, mean by what took it", by_phase("turn_phase_seconds"), "s", stacked=True),
            Panel(
                "The daemon's own part of the first token",
                [
                    Query(
                        f"histogram_quantile({it}, "
                        f"{rate('first_token_phase_seconds_bucket', 'le', phase='daemon')})",
                        f"p{round(it * 100)}",
                    )
                    for it in (0.5, 0.99)
                ],
                "s",
            ),
            Panel("Waits", quantiles("queue_wait_seconds"), "s"),
            Panel(
                "How histories meet what is known",
                [Query(rate("history_matches_total", "kind"), "{{kind}}")],
                "reqps",
                stacked=True,
            ),
            Panel(
                "Turns on hot processes",
                [Query(f"{rate('history_matches_total', hot='true')} / {rate('history_matches_total')}")],
                "percentunit",
            ),
        ),
    ),
    (
        "Model",
        (
            Panel(
                "Tokens",
                [
                    Query(rate("input_tokens_total"), "read"),
                    Query(rate("cached_input_tokens_total"), "read from the cache"),
                    Query(rate("output_tokens_total"), "written"),
                ],
            ),
            Panel(
                "Cost an hour",
                [Query(f"3600 * {rate('cost_usd_total', 'model')}", "{{model}}")],
                "currencyUSD",
                stacked=True,
            ),
            Panel(
                "Tool calls and tries",
                [
                    Query(rate("tool_calls_total", "by"), "calls of {{by}}"),
                    Query(rate("upstream_retries_total", "status"), "tries after {{status}}"),
                ],
                "ops",
            ),
        ),
    ),
    (
        "Workers",
        (
            Panel(
                "Workers",
                [
                    Query("sum by (state) (claude_coded_workers@)", "{{state}}"),
                    Query("sum(claude_coded_pool_size@)", "most"),
                ],
            ),
            Panel(
                "Starts and stops",
                [
                    Query(rate("worker_starts_total", "reason"), "start: {{reason}}"),
                    Query(rate("worker_stops_total", "reason"), "stop: {{reason}}"),
                ],
                "ops",
            ),
            Panel("Conversations", [Query("sum by (set) (claude_coded_conversations@)", "{{set}}")]),
            Panel(
                "Memory",
                [
                    Query("sum(claude_coded_workers_resident_memory_bytes@)", "workers"),
                    Query("sum(process_resident_memory_bytes@)", "daemon"),
                ],
                "bytes",
            ),
            Panel(
                "CPU, in cores",
                [
                    Query(rate("workers_cpu_seconds_total"), "workers"),
                    Query("sum(rate(process_cpu_seconds_total@[~]))", "daemon"),
                ],
            ),
            Panel("Streamed", [Query(rate("stream_bytes_total"), "bytes")], "Bps"),
        ),
    ),
)


def queries() -> Iterator[str]:
    """Yield the PromQL of all panels."""
    for _, panels in PANELS:
        for panel in panels:
            yield from (query.promql for query in panel.queries)


def _placed() -> Iterator[dict[str, Any]]:
    numbers, y = count(1), 0
    for title, panels in PANELS:
        row = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        yield {"id": next(numbers), "type": "row", "title": title, "gridPos": row, "panels": []}
        x, y = 0, y + 1
        for panel in panels:
            if x + panel.width > WIDTH:
                x, y = 0, y + panel.height
            yield panel.shown(next(numbers), x, y)
            x += panel.width
        y += panels[-1].height


def _chosen(label: str) -> dict[str, Any]:
    """Return the variable that chooses values of a label; all of them at first."""
    values = f"label_values(claude_coded_ready, {label})"
    return {
        "name": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": values, "refId": label},
        "definition": values,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard() -> dict[str, Any]:
    """Return it as Grafana has it."""
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return {
        "title": "claude_coded",
        "uid": "claude-coded",
        "tags": ["claude-coded"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source, _chosen("job"), _chosen("instance")]},
        "panels": list(_placed()),
    }


def source() -> str:
    """Return the file's text."""
    return json.dumps(dashboard(), indent=1) + "\n"


def main() -> None:
    """Write it."""
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(source())


if __name__ == "__main__":
    main()
