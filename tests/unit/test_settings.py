"""Flags, environment, file, defaults."""

from hashlib import sha256
from pathlib import Path

import pytest

from claude_coded.errors import ConfigurationError
from claude_coded.keys import read_keys
from claude_coded.settings import load, specs

NOWHERE: dict[str, str] = {"HOME": "/nowhere"}


def test_defaults() -> None:
    settings = load({}, NOWHERE)
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 3000)
    assert (settings.pool.size, settings.pool.spares, settings.pool.idle_timeout) == (5, 1, 300.0)
    assert settings.turns.timeout == 3600.0
    assert settings.claude.permission_mode == "bypassPermissions"
    assert settings.access.api_keys == {}


def test_flag_before_environment_before_file_before_default(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("pool_size = 2\nport = 4000\nqueue_size = 7\n")
    settings = load({"pool_size": "9"}, {"POOL_SIZE": "8", "PORT": "5000"}, file)
    assert (settings.pool.size, settings.server.port, settings.pool.queue_size) == (9, 5000, 7)
    assert settings.pool.spares == 1


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('api_keys = { joe = "k1", ann = "k2" }\nallowed_hosts = ["a", "b"]\n')
    settings = load({}, {"CLAUDE_CODED_CONFIG": str(file)})
    assert settings.access.api_keys == {"joe": "k1", "ann": "k2"}
    assert settings.access.allowed_hosts == ("a", "b")


def test_times_are_milliseconds_outside_and_seconds_inside() -> None:
    assert load({}, {"IDLE_TIMEOUT_MS": "1500"}).pool.idle_timeout == 1.5
    assert load({}, {"IDLE_TIMEOUT_MS": "0"}).pool.idle_timeout == 0


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("POOL_SIZE", "0"),
        ("POOL_SIZE", "five"),
        ("IDLE_TIMEOUT_MS", "-1"),
        ("CLAUDE_CODED_TOOL_ACTIVITY", "everywhere"),
        ("CLAUDE_CODED_ALLOW_NO_KEYS", "maybe"),
        ("CLAUDE_CODED_PERMISSION_MODE", "yolo"),
        ("CLAUDE_CODED_PERMISSION_TIMEOUT_MS", "0"),
    ],
)
def test_a_bad_value_is_named_with_where_it_came_from(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{variable}.*{value}"):
        load({}, {variable: value})


def test_a_secret_is_never_quoted() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({}, {"CLAUDE_CODED_API_KEYS": "sk-secret-without-a-name"})
    assert "secret" not in str(caught.value)


def test_a_key_and_its_digest_are_the_same_key() -> None:
    digest = f"sha256:{sha256(b'k').hexdigest()}"
    settings = load({}, {"CLAUDE_CODED_API_KEYS": f"joe:k,ann:{digest}"})
    with pytest.raises(ConfigurationError, match="joe and ann"):
        read_keys(settings.access, {})


@pytest.mark.parametrize("digest", ["", "ab", "g" * 64, "A" * 64, "a" * 65])
def test_a_digest_that_is_none_is_told_and_not_quoted(digest: str) -> None:
    with pytest.raises(ConfigurationError, match="64 digits") as caught:
        load({}, {"CLAUDE_CODED_API_KEYS": f"joe:sha256:{digest}"})
    assert f":{digest}" not in str(caught.value) or not digest


def test_a_digest_is_kept_as_it_is() -> None:
    settings = load({}, {"CLAUDE_CODED_API_KEYS": f"joe: sha256:{'0a' * 32} ,ann:k"})
    assert settings.access.api_keys == {"joe": f"sha256:{'0a' * 32}", "ann": "k"}


def test_unknown_settings_in_the_file_are_told(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("pool_sise = 3")
    with pytest.raises(ConfigurationError, match="pool_sise"):
        load({}, {}, file)
    with pytest.raises(ConfigurationError, match=r"none\.toml"):
        load({}, {}, tmp_path / "none.toml")


def test_keys_come_from_the_setting_the_file_and_the_credential(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# people\nann:k2\n\njoe:k3\n")
    (tmp_path / "api-keys").write_text("bot:k4")
    environment = {
        "CLAUDE_CODED_API_KEYS": "joe:k1",
        "CLAUDE_CODED_API_KEYS_FILE": str(file),
        "CREDENTIALS_DIRECTORY": str(tmp_path),
    }
    settings = load({}, environment)
    assert read_keys(settings.access, environment) == {"joe": "k3", "ann": "k2", "bot": "k4"}


def test_a_key_is_one_tenants() -> None:
    settings = load({}, {"CLAUDE_CODED_API_KEYS": "joe:k1,ann:k2,bot:k1"})
    with pytest.raises(ConfigurationError, match="joe and bot have the same") as caught:
        read_keys(settings.access, {})
    assert "k1" not in str(caught.value)


def test_the_models_key_comes_from_the_credential_where_nothing_else_gives_it(tmp_path: Path) -> None:
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load({}, environment).claude.api_key is None
    (tmp_path / "anthropic-api-key").write_text("sk-1\n")
    assert load({}, environment).claude.api_key == "sk-1"
    assert load({}, {**environment, "ANTHROPIC_API_KEY": "sk-2"}).claude.api_key == "sk-2"
    (tmp_path / "anthropic-api-key").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="anthropic-api-key"):
        load({}, environment)


def test_the_state_directory() -> None:
    assert load({}, {"STATE_DIRECTORY": "/var/lib/x"}).state_dir == Path("/var/lib/x")
    assert load({}, {"XDG_STATE_HOME": "/s"}).state_dir == Path("/s/claude-coded")


def test_every_setting_has_one_name_in_three_forms() -> None:
    keys = [spec.key for spec in specs()]
    assert len(set(keys)) == len(keys)
    for spec in specs():
        assert spec.flag == "--" + spec.key.replace("_", "-")
        assert spec.variable.endswith(spec.key.upper())
        assert spec.help.endswith(".")
        assert spec.variable.endswith("_MS") == (spec.unit == "ms")
