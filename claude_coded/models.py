"""The model names of the API, and what kind of worker each asks for."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from claude_coded.errors import ModelNotFound
from claude_coded.profiles import ModelSettings
from claude_coded.turn import Profile, Prompting

AGENT: Final = Profile("claude-code", agent=True)
CHAT: Final = Profile("claude-code-chat", agent=False)
ALIASES: Final = ("sonnet", "opus", "haiku")

LONGEST: Final = 256
"""Characters of a model's name: it becomes an argument of the CLI."""

_PROMPTINGS: Final[Mapping[str | None, Prompting]] = {
    "append": Prompting.APPENDED,
    "replace": Prompting.REPLACING,
}


def profile_of(model: ModelSettings) -> Profile:
    """Return the kind of worker that a model of the operator's asks for."""
    return Profile(
        model.name,
        agent=model.base == "agent",
        model=model.model,
        prompt=_PROMPTINGS.get(model.system_prompt),
        system=model.system,
        tools=model.tools,
        permission_mode=model.permission_mode,
        effort=model.effort,
        mcp=model.mcp_config,
        workspace=model.workspace,
    )


class Models:
    """The model names that may be asked for: ours, the operator's, and the CLI's, which are learnt from it.

    A model of the operator's goes before one of the CLI's with the same name.
    """

    def __init__(self, models: Iterable[ModelSettings] = ()) -> None:
        self._own: dict[str, dict[str, Any]] = {}
        self._profiles: dict[str, Profile] = {}
        self.configure(models)

    def configure(self, models: Iterable[ModelSettings]) -> None:
        """Take these models of the operator's in place of those before; what runs goes on as it began."""
        named = (AGENT, CHAT, *map(profile_of, models))
        self._profiles = {profile.name: profile for profile in named}

    def learn(self, models: Iterable[dict[str, Any]]) -> None:
        """Take in the CLI's list. Its `default` is what the profiles use already."""
        named = {str(m["value"]): m for m in models if m.get("value") not in {None, "default"}}
        self._own = named or self._own

    @property
    def names(self) -> list[str]:
        """Return all names, each once, the profiles first."""
        return list(dict.fromkeys([*self._profiles, *(self._own or ALIASES)]))

    def profile(self, name: str) -> Profile:
        """Return what a model name asks for. Raises ModelNotFound."""
        if (profile := self._profiles.get(name)) is not None:
            return profile
        if name in self.names or _is_claudes(name):
            return Profile(name, agent=True, model=name)
        raise ModelNotFound(
            f"the model {name!r} does not exist; there are {', '.join(self.names)}", param="model"
        )


def _is_claudes(name: str) -> bool:
    """Return whether a name that the CLI has not listed may still be a model of Anthropic's."""
    return name.startswith("claude-") and name.isprintable() and len(name) <= LONGEST
