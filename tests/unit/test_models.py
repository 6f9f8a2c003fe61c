"""Model names."""

import pytest

from claude_coded.errors import ModelNotFound
from claude_coded.models import AGENT, CHAT, Models
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


@pytest.mark.parametrize("name", ["gpt-4o", "default", "", "Claude-code", "fable"])
def test_other_names_are_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        Models().profile(name)
    assert (caught.value.status, caught.value.param) == (404, "model")
