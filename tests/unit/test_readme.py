"""What the README says of settings and fields is what the code has."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import falcon.asgi
import falcon.inspect
import pytest

from claude_coded import errors
from claude_coded.codectl.commands import main
from claude_coded.control.app import create_control_app
from claude_coded.events import KEPT, EventKind
from claude_coded.http.access import Access, Gate
from claude_coded.http.app import create_app
from claude_coded.http.choices import HEADERS
from claude_coded.http.limits import KeyLimits
from claude_coded.metrics import Metrics
from claude_coded.openai.fields import FIELDS, Rule, Treatment
from claude_coded.openai.responses.request import RESPONSE_FIELDS
from claude_coded.reading import Choice
from claude_coded.settings import Settings, specs

README = (Path(__file__).parents[2] / "README.md").read_text()


def section(title: str) -> str:
    return README.split(f"# {title}\n")[1].split("\n#")[0]


def rows_of_settings() -> dict[str, tuple[str, str]]:
    rows = re.findall(r"^\| `([A-Z_]+)` \|(.*?)\|(.*)\|$", section("Settings"), re.MULTILINE)
    return {variable: (default.strip(), text) for variable, default, text in rows}


def test_every_setting_is_told_with_its_default() -> None:
    rows = rows_of_settings()
    assert set(rows) == {spec.variable for spec in specs()}
    for spec in specs():
        default, _ = rows[spec.variable]
        assert default.replace("`", "") == spec.unset, spec.variable  # what `--help` says


def test_what_is_promised_is_held_by_tests_that_there_are() -> None:
    named = re.findall(r"`((?:unit|acceptance)/test_\w+\.py)`", section("Security"))
    assert named
    assert [name for name in named if not (Path(__file__).parents[1] / name).exists()] == []


def test_every_choice_is_told() -> None:
    for spec in specs():
        words = spec.parse.words if isinstance(spec.parse, Choice) else ()
        for word in words:
            assert word in spec.help, spec.variable
            assert word in " ".join(rows_of_settings()[spec.variable]), spec.variable


@pytest.mark.parametrize(
    ("title", "table"), [("Fields of a chat request", FIELDS), ("Responses", RESPONSE_FIELDS)]
)
def test_every_field_is_told_with_its_treatment(title: str, table: Mapping[str, Rule]) -> None:
    rows = dict(re.findall(r"^\| (honoured|refused|ignored)(.*)$", section(title), re.MULTILINE))
    for treatment in Treatment:
        told = set(re.findall(r"`([a-z_]+)`", re.sub(r"\(its `\w+`\)", "", rows[treatment.value])))
        assert told == {name for name, rule in table.items() if rule.treatment is treatment}


def test_every_command_is_told_with_its_options() -> None:
    rows = re.findall(r"^\| `.*$", section("claude-codectl"), re.MULTILINE)
    told = {name: row for row in rows for name in re.findall(r"`([a-z-]+)[ `]", row)}
    assert set(main.commands) == set(told) & set(main.commands)
    for name, command in main.commands.items():
        own = {option for param in command.params for option in param.opts if option.startswith("--")}
        for option in own - {"--json", "--socket"}:
            assert option in told[name], (name, option)


def tcp() -> falcon.asgi.App[Any, Any]:
    return create_app(Mock(), Mock(), Gate(Access.of(Settings(), {}), KeyLimits(lambda: 0)), Mock())


def unix() -> falcon.asgi.App[Any, Any]:
    app: falcon.asgi.App[Any, Any] = cast("Any", create_control_app(Mock()))._app
    return app


@pytest.mark.parametrize(("title", "app"), [("HTTP", tcp()), ("The control socket", unix())])
def test_every_endpoint_is_told(title: str, app: falcon.asgi.App[Any, Any]) -> None:
    routes = {
        f"{method.method} {route.path.replace('{name}', '{id}')}"
        for route in falcon.inspect.inspect_routes(app)
        for method in route.methods
        if not method.internal
    }
    rows = re.findall(r"^\| (`(?:GET|POST|PUT|DELETE) .*?) \|", section(title), re.MULTILINE)
    assert {told for row in rows for told in re.findall(r"`([A-Z]+ /[^`?]*)", row)} == routes


def test_every_kind_of_event_is_told() -> None:
    rows = re.findall(r"^\| (`[a-z_.`, ]+) \|", section("Events"), re.MULTILINE)
    assert sorted(re.findall(r"`([a-z_.]+)`", " ".join(rows))) == sorted(EventKind)
    assert f"The newest {KEPT:,} are kept" in section("Events")


def known(kind: type[errors.CodedError] = errors.CodedError) -> Iterator[type[errors.CodedError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from known(child)


def test_every_error_is_told() -> None:
    rows = re.findall(r"^\| (\d[\d, ]*) \| (.*?) \|", section("HTTP"), re.MULTILINE)
    told = {(int(status), code) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    raised = {
        (kind.status, kind.code) for kind in known() if kind.__module__ == errors.__name__ and kind.code
    }
    assert told == raised


def test_every_header_of_a_choice_is_told() -> None:
    assert all(f"| `{header}` |" in section("HTTP") for header in HEADERS)


def test_every_metric_is_told() -> None:
    rows = re.findall(r"^\| (`[a-z_`, ]+) \|", section("Metrics"), re.MULTILINE)
    suffixes = {"counter": "_total", "info": "_info"}
    shown = [
        metric.name + suffixes.get(metric.type, "") for metric in Metrics("1", "2", lambda: 0.0).collect()
    ]
    assert {f"claude_coded_{name}" for row in rows for name in re.findall(r"`(\w+)`", row)} == {
        name for name in shown if name.startswith("claude_coded_")
    }
