"""Models of the operator's in the TOML file: what is taken, and how what is not is named."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.errors import ConfigurationError
from claude_coded.profiles import BUILT_IN, EFFORTS, ModelSettings, read_models
from claude_coded.settings import PERMISSION_MODES, load

SERVERS = {"mcpServers": {"notes": {"command": "x"}, "my web.1": {"type": "http", "url": "http://h"}}}
WHOLE = """
pool_size = 2
[models.reviewer]
base = "chat"
model = "opus"
tools = ["Read", "Grep"]
system = "You review."
system_prompt = "append"
permission_mode = "plan"
effort = "high"
mcp_config = "mcp.json"
workspace = "work"
[models."gpt-4.1_x"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    (tmp_path / "mcp.json").write_text(json.dumps(SERVERS))
    return tmp_path / "config.toml"


def test_models_are_read_with_the_settings(file: Path) -> None:
    file.write_text(WHOLE)
    settings = load({}, {}, file)
    assert settings.pool.size == 2
    reviewer, other = settings.models
    assert other == ModelSettings("gpt-4.1_x")
    assert (reviewer.name, reviewer.base, reviewer.model) == ("reviewer", "chat", "opus")
    assert reviewer.tools == ("Read", "Grep")
    assert (reviewer.system, reviewer.system_prompt) == ("You review.", "append")
    assert (reviewer.permission_mode, reviewer.effort) == ("plan", "high")
    assert reviewer.workspace == file.parent / "work"
    assert reviewer.mcp_config is not None
    assert reviewer.mcp_config.path == file.parent / "mcp.json"
    assert reviewer.mcp_config.servers == ("notes", "my_web_1")
    assert load({}, {}, file) == settings
    assert hash(settings.models)


def test_no_file_and_no_tables_are_no_models(file: Path) -> None:
    assert load({}, {"HOME": "/nowhere"}).models == ()
    file.write_text("pool_size = 1\n[models]\n")
    assert load({}, {}, file).models == ()


def test_no_tools_are_not_all_tools(file: Path) -> None:
    file.write_text("[models.x]\ntools = []\n")
    assert load({}, {}, file).models[0].tools == ()


def test_a_changed_file_of_servers_makes_another_model(file: Path) -> None:
    file.write_text('[models.x]\nmcp_config = "mcp.json"\n')
    before = load({}, {}, file).models
    (file.parent / "mcp.json").write_text(json.dumps(SERVERS) + "\n")
    assert load({}, {}, file).models != before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('colour = "red"', "unknown keys: colour; there are base, model, tools"),
        ('base = "robot"', r"base \('robot'\): must be one of agent, chat"),
        ("base = 3", r"base \(3\): must be one of"),
        ('model = ""', "model .*: must be a text"),
        ('model = "a\\u0000b"', "model .*: must be printable"),
        ('tools = "Read"', "tools .*: must be a list of names"),
        ('tools = ["Read,Bash"]', "tools .*: must be a list of names"),
        ("tools = [1]", "tools .*: must be a list of names"),
        ('system_prompt = "prepend"', "system_prompt .*: must be one of append, replace"),
        ('permission_mode = "yolo"', "permission_mode .*: must be one of bypassPermissions"),
        ('effort = "minimal"', "effort .*: must be one of low"),
        ('workspace = "nowhere"', "workspace .*: there is no directory /.*/nowhere"),
        ('workspace = "config.toml"', "workspace .*: there is no directory"),
        ('mcp_config = "none.json"', "mcp_config .*: .*No such file"),
        ('mcp_config = "work"', "mcp_config .*: .*Is a directory"),
        ('mcp_config = "config.toml"', "mcp_config .*: .* is not JSON"),
        ('mcp_config = "~nobody-here/x"', "mcp_config .*: this user"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place(file: Path, line: str, said: str) -> None:
    file.write_text(f"[models.mine]\n{line}\n")
    with pytest.raises(ConfigurationError, match=rf"config\.toml: \[models\.mine\]:? {said}"):
        load({}, {}, file)


@pytest.mark.parametrize(
    "document",
    [
        *("[]", '{"mcpServers": []}', '{"servers": {}}', '{"mcpServers": {"x": {"args": []}}}'),
        *('{"mcpServers": {"x": {"command": 3}}}', '{"mcpServers": {"client": {"command": "x"}}}'),
        '{"secret": k1',
    ],
)
def test_a_file_of_servers_that_the_cli_would_pass_over_is_refused_and_not_quoted(
    file: Path, document: str
) -> None:
    (file.parent / "mcp.json").write_text(document)
    file.write_text('[models.mine]\nmcp_config = "mcp.json"\n')
    with pytest.raises(ConfigurationError, match=r"\[models\.mine\] mcp_config .*mcp\.json") as caught:
        load({}, {}, file)
    assert "k1" not in str(caught.value)


@pytest.mark.parametrize("name", ["a:b", "", "-x", "a b", "a/b", "x" * 129, *BUILT_IN])
def test_names_that_cannot_be_asked_for_or_are_taken_are_refused(file: Path, name: str) -> None:
    file.write_text(f'[models."{name}"]\n')
    with pytest.raises(ConfigurationError, match=r"config\.toml: \[models\."):
        load({}, {}, file)


@pytest.mark.parametrize("text", ["models = 3", 'models = ["x"]', '[models]\nx = "opus"'])
def test_models_are_tables(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"models are tables: \[models\.NAME\]"):
        load({}, {}, file)


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True).filter(
    lambda it: it not in BUILT_IN
)
TEXTS = st.text(min_size=1).filter(str.strip)
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "base": st.sampled_from(["agent", "chat"]),
    "model": TEXTS.filter(str.isprintable),
    "tools": st.lists(st.from_regex(r"[A-Za-z][A-Za-z0-9_]*", fullmatch=True)),
    "system": TEXTS,
    "system_prompt": st.sampled_from(["append", "replace"]),
    "permission_mode": st.sampled_from(PERMISSION_MODES),
    "effort": st.sampled_from(EFFORTS),
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from([*GOOD, "mcp_config", "workspace"]) | st.text()


@given(st.dictionaries(NAMES, st.fixed_dictionaries({}, optional=GOOD), max_size=4))
def test_every_good_table_is_taken_as_it_stands(tables: dict[str, dict[str, Any]]) -> None:
    made = read_models(tables, Path("/c.toml"), PERMISSION_MODES)
    assert [model.name for model in made] == list(tables)
    for model in made:
        for key, value in tables[model.name].items():
            assert getattr(model, key) == (tuple(value) if isinstance(value, list) else value)


@given(st.dictionaries(NAMES | st.text(), st.dictionaries(KEYS, ANYTHING, max_size=3), max_size=3) | ANYTHING)
def test_whatever_stands_there_is_taken_or_refused_with_its_place(tables: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "c.toml"
        made: tuple[ModelSettings, ...] | None = None
        said = ""
        try:
            made = read_models(tables, file, PERMISSION_MODES)
        except ConfigurationError as error:
            said = str(error)
        if made is None:
            assert said.startswith(f"configuration file {file}: ")
        else:
            assert [model.name for model in made] == list(tables)
            assert all(":" not in model.name and model.name not in BUILT_IN for model in made)
