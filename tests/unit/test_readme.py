"""What the README says of settings and fields is what the code has."""

import re
from pathlib import Path

from claude_coded.codectl.commands import main
from claude_coded.openai.fields import FIELDS, Treatment
from claude_coded.reading import Choice
from claude_coded.settings import specs

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


def test_every_choice_is_told() -> None:
    for spec in specs():
        words = spec.parse.words if isinstance(spec.parse, Choice) else ()
        for word in words:
            assert word in spec.help, spec.variable
            assert word in " ".join(rows_of_settings()[spec.variable]), spec.variable


def test_every_field_is_told_with_its_treatment() -> None:
    rows = dict(
        re.findall(r"^\| (honoured|refused|ignored)(.*)$", section("Fields of a chat request"), re.MULTILINE)
    )
    for treatment in Treatment:
        told = set(re.findall(r"`([a-z_]+)`", rows[treatment.value]))
        assert told == {name for name, rule in FIELDS.items() if rule.treatment is treatment}


def test_every_command_is_told_with_its_options() -> None:
    rows = re.findall(r"^\| `.*$", section("claude-codectl"), re.MULTILINE)
    told = {name: row for row in rows for name in re.findall(r"`([a-z-]+)[ `]", row)}
    assert set(main.commands) == set(told) & set(main.commands)
    for name, command in main.commands.items():
        own = {option for param in command.params for option in param.opts if option.startswith("--")}
        for option in own - {"--json", "--socket"}:
            assert option in told[name], (name, option)
