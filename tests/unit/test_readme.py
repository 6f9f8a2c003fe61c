"""What the README says of settings and fields is what the code has."""

import re
from pathlib import Path

from claude_coded.openai.fields import FIELDS, Treatment
from claude_coded.settings import specs

README = (Path(__file__).parents[2] / "README.md").read_text()


def section(title: str) -> str:
    return README.split(f"# {title}\n")[1].split("\n#")[0]


def test_every_setting_is_told_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", section("Settings"), re.MULTILINE))
    assert set(rows) == {spec.variable for spec in specs()}
    for spec in specs():
        if spec.default not in {None, ()} and spec.derive is None:
            assert rows[spec.variable] == spec.show(spec.default), spec.variable


def test_every_field_is_told_with_its_treatment() -> None:
    rows = dict(
        re.findall(r"^\| (honoured|refused|ignored)(.*)$", section("Fields of a chat request"), re.MULTILINE)
    )
    for treatment in Treatment:
        told = set(re.findall(r"`([a-z_]+)`", rows[treatment.value]))
        assert told == {name for name, rule in FIELDS.items() if rule.treatment is treatment}
