"""Model names."""

import pytest

from claude_coded.errors import ModelNotFound
from claude_coded.models import AGENT, CHAT, Models, profile_of
from claude_coded.profiles import ModelSettings
from claude_coded.turn import Profile, Prompting


def test_the_profiles_come_first_and_then_the_clis_own() -> None:
    models = Models()
    assert models.names == ["claude-code", "claude-code-chat", "sonnet", "opus", "haiku"]
    models.learn([{"value": "default"}, {"value": "fable", "displayName": "Fable"}, {}])
    assert models.names == ["claude-code", "claude-code-chat", "fable"]
    models.learn([])
    assert "fable" in models.names


def test_what_a_name_asks_for() -> None:
    models = Models()
    assert models.profile("claude-code") is AGENT
    assert models.profile("claude-code-chat") is CHAT
    assert models.profile("haiku") == Profile("haiku", agent=True, model="haiku")
    assert models.profile("claude-opus-9").model == "claude-opus-9"
    assert (AGENT.prompting, CHAT.prompting) == (Prompting.APPENDED, Prompting.REPLACING)


def test_the_operators_models_stand_between_and_go_before_the_clis() -> None:
    models = Models([ModelSettings("reviewer", tools=()), ModelSettings("opus", effort="max")])
    assert models.names == ["claude-code", "claude-code-chat", "reviewer", "opus", "sonnet", "haiku"]
    assert models.profile("reviewer") == Profile("reviewer", agent=True, tools=())
    assert models.profile("opus") == Profile("opus", agent=True, effort="max")
    models.learn([{"value": "opus"}, {"value": "fable"}])
    assert models.names == ["claude-code", "claude-code-chat", "reviewer", "opus", "fable"]


def test_the_operators_models_can_be_replaced() -> None:
    models = Models([ModelSettings("reviewer")])
    models.learn([{"value": "fable"}])
    models.configure([ModelSettings("writer", base="chat")])
    assert models.names == ["claude-code", "claude-code-chat", "writer", "fable"]
    with pytest.raises(ModelNotFound):
        models.profile("reviewer")
    models.configure([])
    assert models.names == ["claude-code", "claude-code-chat", "fable"]


def test_whose_text_the_prompt_is() -> None:
    by = {
        (base, mode): profile_of(ModelSettings("x", base=base, system_prompt=mode)).prompting
        for base in ("agent", "chat")
        for mode in (None, "append", "replace")
    }
    assert [by["agent", mode].value for mode in (None, "append", "replace")] == [
        *("appended", "appended", "replacing")
    ]
    assert [by["chat", mode].value for mode in (None, "append", "replace")] == [
        *("replacing", "appended", "replacing")
    ]
    profile = profile_of(ModelSettings("x", system="ours"))
    assert (profile.system_text("theirs"), profile.system_text("")) == ("ours\n\ntheirs", "ours")
    assert (AGENT.system_text("theirs"), AGENT.system_text("")) == ("theirs", "")


@pytest.mark.parametrize(
    "name",
    [
        *("gpt-4o", "default", "", "Claude-code", "fable"),
        *("claude-a\0b", "claude-a\nb", "claude-\ud800", "claude-" + "x" * 250),
    ],
)
def test_other_names_are_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        Models().profile(name)
    assert (caught.value.status, caught.value.param) == (404, "model")
