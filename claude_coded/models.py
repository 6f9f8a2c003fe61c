"""The model names of the API, and what kind of worker each asks for."""

from collections.abc import Iterable
from typing import Any, Final

from claude_coded.errors import ModelNotFound
from claude_coded.turn import Profile

AGENT: Final = Profile("claude-code", agent=True)
CHAT: Final = Profile("claude-code-chat", agent=False)
ALIASES: Final = ("sonnet", "opus", "haiku")


class Models:
    """The model names that may be asked for; the CLI's own are learnt from it."""

    def __init__(self) -> None:
        self._own: dict[str, dict[str, Any]] = {}

    def learn(self, models: Iterable[dict[str, Any]]) -> None:
        """Take in the CLI's list. Its `default` is what the profiles use already."""
        named = {str(m["value"]): m for m in models if m.get("value") not in {None, "default"}}
        self._own = named or self._own

    @property
    def names(self) -> list[str]:
        """Return all names, the profiles first."""
        return [AGENT.name, CHAT.name, *(self._own or dict.fromkeys(ALIASES))]

    def profile(self, name: str) -> Profile:
        """Return what a model name asks for. Raises ModelNotFound."""
        for profile in (AGENT, CHAT):
            if name == profile.name:
                return profile
        if name in self.names or name.startswith("claude-"):
            return Profile(name, agent=True, model=name)
        raise ModelNotFound(
            f"the model {name!r} does not exist; there are {', '.join(self.names)}", param="model"
        )
