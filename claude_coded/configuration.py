"""Where the settings come from, what is in force, and what of it a running daemon can change."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from claude_coded.settings import Settings, Spec, load, origins, spec_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Source:
    """What the daemon was started with: its flags, its environment and the TOML file that it was given."""

    flags: Mapping[str, str]
    environment: Mapping[str, str]
    config: Path | None = None

    def load(self) -> Settings:
        """Return the settings as they are written at this moment. Raises ConfigurationError."""
        return load(self.flags, self.environment, self.config)

    def places(self) -> Mapping[str, str]:
        """Return where each setting that is given at this moment comes from. Raises ConfigurationError."""
        return origins(self.flags, self.environment, self.config)


@dataclass(frozen=True, slots=True)
class Change:
    """What a reload comes to: the settings to go on with, what changed, what a restart is needed for."""

    settings: Settings
    changed: tuple[str, ...]
    restart: tuple[str, ...]

    def with_changed(self, name: str) -> "Change":
        """Return the same, with something else that has changed."""
        return replace(self, changed=(*self.changed, name))


def describe(settings: Settings, places: Mapping[str, str]) -> list[tuple[Spec, str, str]]:
    """Return each setting in force, its value as text, and where that was given."""
    return [(spec, spec.show(value), places.get(spec.variable, "default")) for spec, value in each(settings)]


def change(old: Settings, new: Settings) -> Change:
    """Return what a running daemon can take over of new settings; the others stay, and are named."""
    values = dict(each(new))
    differing = [spec for spec, value in each(old) if values[spec] != value]
    restart = tuple(spec.variable for spec in differing if spec.restart)
    wanted = Change(
        _keep(old, new, set(restart)),
        tuple(spec.variable for spec in differing if not spec.restart),
        restart,
    )
    return wanted.with_changed("models") if old.models != new.models else wanted


def each(settings: object) -> Iterator[tuple[Spec, Any]]:
    """Yield every setting with its value, in the order of the dataclasses."""
    assert is_dataclass(settings)
    for item in fields(settings):
        value = getattr(settings, item.name)
        if "variable" in item.metadata:
            yield spec_of(item), value
        elif is_dataclass(value):
            yield from each(value)


def _keep(old: T, new: T, kept: set[str]) -> T:
    """Return the new settings with the old values of some variables."""
    assert is_dataclass(new)
    assert not isinstance(new, type)
    values: dict[str, Any] = {}
    for item in fields(new):
        before, after = getattr(old, item.name), getattr(new, item.name)
        if "variable" in item.metadata:
            values[item.name] = before if item.metadata["variable"] in kept else after
        elif is_dataclass(after):
            values[item.name] = _keep(before, after, kept)
    return replace(new, **values)
