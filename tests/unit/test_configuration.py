"""What is in force, where it came from, and what a reload takes over."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.configuration import Source, change, describe, each
from claude_coded.errors import ConfigurationError
from claude_coded.settings import load, specs

ENVIRONMENT = {"HOME": "/home/x", "WORKSPACE_DIR": "/"}


def source(file: Path, **environment: str) -> Source:
    file.touch()
    return Source({"pool_size": "4"}, {**ENVIRONMENT, **environment}, file)


def test_each_setting_is_told_with_its_value_and_its_place(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("queue_size = 9\n[api_keys]\nme = 'secret'\n")
    given = source(file, CLAUDE_CODED_TURN_TIMEOUT_MS="2500", CLAUDE_CODED_ALLOWED_HOSTS="a, b")
    told = {spec.variable: (value, place) for spec, value, place in describe(given.load(), given.places())}
    assert set(told) == {spec.variable for spec in specs()}
    assert told["POOL_SIZE"] == ("4", "--pool-size")
    assert told["CLAUDE_CODED_TURN_TIMEOUT_MS"] == ("2500", "CLAUDE_CODED_TURN_TIMEOUT_MS")
    assert told["CLAUDE_CODED_ALLOWED_HOSTS"][0] == "a,b"
    assert told["CLAUDE_CODED_QUEUE_SIZE"] == ("9", "queue_size in the configuration file")
    assert told["CLAUDE_CODED_API_KEYS"][0] == "(set)"
    assert told["CLAUDE_CODED_AUTO_COMPACT"] == ("true", "default")
    assert told["CLAUDE_CODED_CLAUDE_BIN"] == ("", "default")


def test_a_change_is_taken_over_unless_it_needs_a_restart() -> None:
    old = load({}, ENVIRONMENT)
    new = load({}, {**ENVIRONMENT, "PORT": "4000", "POOL_SIZE": "9", "CLAUDE_CODED_LOG_LEVEL": "debug"})
    wanted = change(old, new)
    assert (wanted.changed, wanted.restart) == (("POOL_SIZE", "CLAUDE_CODED_LOG_LEVEL"), ("PORT",))
    assert wanted.settings.server.port == old.server.port
    assert (wanted.settings.pool.size, wanted.settings.logs.level) == (9, "debug")


def test_models_are_a_change_too(tmp_path: Path) -> None:
    given = source(tmp_path / "config.toml")
    old = given.load()
    (tmp_path / "config.toml").write_text('[models.reviewer]\ntools = ["Read"]\n')
    assert change(old, given.load()).changed == ("models",)


def test_no_change_is_none(tmp_path: Path) -> None:
    given = source(tmp_path / "config.toml")
    settings = given.load()
    wanted = change(settings, given.load())
    assert (wanted.settings, wanted.changed, wanted.restart) == (settings, (), ())


def test_a_file_that_went_bad_raises(tmp_path: Path) -> None:
    given = source(tmp_path / "config.toml")
    given.load()
    (tmp_path / "config.toml").write_text("pool_size = ")
    with pytest.raises(ConfigurationError, match="configuration file"):
        given.load()


NUMBERS = [spec for spec in specs() if isinstance(spec.default, int | float) and spec.derive is None]


@given(
    st.dictionaries(
        st.sampled_from([s.variable for s in NUMBERS if s.default not in {True, False}]),
        st.integers(1024, 9000),
    )
)
def test_what_changes_and_what_stays_are_all_that_differs(values: dict[str, int]) -> None:
    old = load({}, ENVIRONMENT)
    new = load({}, {**ENVIRONMENT, **{name: str(value) for name, value in values.items()}})
    wanted = change(old, new)
    before, after, got = dict(each(old)), dict(each(new)), dict(each(wanted.settings))
    differing = {spec.variable for spec in before if before[spec] != after[spec]}
    assert differing == {*wanted.changed, *wanted.restart}
    for spec, value in got.items():
        assert value == (before if spec.variable in wanted.restart else after)[spec]
