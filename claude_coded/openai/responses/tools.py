"""The tools of a response: functions and custom tools, in namespaces or not, and what is not offered."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from claude_coded.errors import InvalidRequest, UnsupportedParameter
from claude_coded.openai.schemas import SchemaCheck, object_schema
from claude_coded.openai.tools import NO_PARAMETERS, check_name
from claude_coded.openai.wire import canonical, convert
from claude_coded.turn import Tools, ToolSpec

CUSTOM_INPUT: Final = "input"
"""The one argument of a custom tool, which to the model is a function of one text."""
CUSTOM_PARAMETERS: Final = canonical(
    {
        "type": "object",
        "properties": {CUSTOM_INPUT: {"type": "string"}},
        "required": [CUSTOM_INPUT],
        "additionalProperties": False,
    },
    "tools",
)

HOSTED: Final = frozenset(
    {
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
        "web_search_preview_2025_03_11",
        "file_search",
        "code_interpreter",
        "image_generation",
        "mcp",
        "tool_search",
        "programmatic_tool_calling",
    }
)
"""Tools that OpenAI's servers run."""

FUNCTION: Final = "function"
CUSTOM: Final = "custom"
NAMESPACE: Final = "namespace"


class Format(Struct, frozen=True):
    """What a custom tool takes: any text, or one of a grammar."""

    type: Literal["text", "grammar"]
    syntax: Literal["lark", "regex"] | None = None
    definition: str | None = None


class Tool(Struct, frozen=True):
    """A tool, or a namespace of some, as a client sends it."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: Format | None = None
    tools: "list[Tool] | None" = None


class Choice(Struct, frozen=True):
    """A choice by name: of one tool, or with `tools` of some."""

    type: str
    name: str | None = None
    namespace: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: "list[Choice] | None" = None


class ToolFields(Struct, frozen=True):
    """The fields of a request that say what may be called."""

    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | Choice | None = None
    parallel_tool_calls: bool | None = None


class Named(Struct, frozen=True):
    """What a client calls a tool of its own by."""

    name: str
    namespace: str | None = None
    custom: bool = False


class Toolbox(Struct, frozen=True):
    """The tools that may be called, and by the name that the turn has for each what the client calls it by.

    `ignored` names those that are not offered.
    """

    tools: Tools = Tools()
    names: Mapping[str, Named] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def full_name(name: str, namespace: str | None) -> str:
    """Return the name that the turn has for a tool."""
    return f"{namespace}__{name}" if namespace else name


def parse_tools(body: Mapping[str, Any]) -> Toolbox:
    """Return the tools. Raises InvalidRequest and UnsupportedParameter."""
    fields = convert(body, ToolFields)
    found = _Found()
    for index, tool in enumerate(fields.tools or ()):
        found.add(tool, f"tools[{index}]")
    tools = _choose(found, fields.tool_choice)
    tools = replace(tools, parallel=fields.parallel_tool_calls is not False)
    return Toolbox(tools, found.names, tuple(found.ignored))


class _Found:
    """The tools that there are."""

    def __init__(self) -> None:
        self.specs: dict[str, ToolSpec] = {}
        self.names: dict[str, Named] = {}
        self.ignored: list[str] = []
        self._check = SchemaCheck()

    def add(self, tool: Tool, place: str) -> None:
        if tool.type in {FUNCTION, CUSTOM}:
            self._tool(tool, None, place)
        elif tool.type == NAMESPACE:
            namespace = check_name(tool.name or "", f"{place}.name")
            for index, inner in enumerate(tool.tools or ()):
                self._tool(inner, namespace, f"{place}.tools[{index}]")
        elif tool.type in HOSTED:
            self.ignored.append(place)
        else:
            raise UnsupportedParameter(
                f"tools of type {tool.type!r:.60} are not supported", param=f"{place}.type"
            )

    def _tool(self, tool: Tool, namespace: str | None, place: str) -> None:
        if tool.type not in {FUNCTION, CUSTOM}:
            raise UnsupportedParameter(
                f"tools of type {tool.type!r:.60} are not supported here", param=f"{place}.type"
            )
        plain = check_name(tool.name or "", f"{place}.name")
        name = full_name(plain, namespace)
        if name in self.specs:
            raise InvalidRequest(f"there are two tools {name!r}", param=f"{place}.name")
        custom = tool.type == CUSTOM
        self.specs[name] = _custom(tool, name, place) if custom else self._function(tool, name, place)
        self.names[name] = Named(plain, namespace, custom)

    def _function(self, tool: Tool, name: str, place: str) -> ToolSpec:
        parameters = object_schema(tool.parameters or NO_PARAMETERS, f"{place}.parameters")
        if tool.strict:
            self._check(parameters, f"{place}.parameters")  # calls are held against it
        return ToolSpec(name, tool.description or "", parameters, bool(tool.strict))


def _custom(tool: Tool, name: str, place: str) -> ToolSpec:
    """Return a function of one text. A grammar is told to the model: nothing here can hold it to that."""
    lines = [tool.description] if tool.description else []
    if tool.format is not None and tool.format.type == "grammar":
        if not tool.format.definition or tool.format.syntax is None:
            raise InvalidRequest("a grammar has a syntax and a definition", param=f"{place}.format")
        lines.append(f"The input follows this {tool.format.syntax} grammar:\n{tool.format.definition}")
    return ToolSpec(name, "\n\n".join(lines), CUSTOM_PARAMETERS)


# What is chosen ----------------------------------------------------------------------------------------


def _choose(found: _Found, choice: str | Choice | None) -> Tools:
    specs = tuple(found.specs.values())
    match choice:
        case None | "auto":
            return Tools(specs)
        case "none":
            return Tools()
        case Choice(type="allowed_tools", tools=tools, mode=mode):
            return _allowed(found, tools or [], required=mode == "required")
        case Choice():
            return Tools((_chosen(found, choice, "tool_choice"),), required=True)
    if not specs:
        raise InvalidRequest("there are no tools to choose from", param="tool_choice")
    return Tools(specs, required=True)


def _allowed(found: _Found, choices: Sequence[Choice], *, required: bool) -> Tools:
    """Return the tools that are allowed, in the order in which they were given."""
    names = {
        _chosen(found, choice, f"tool_choice.tools[{index}]").name
        for index, choice in enumerate(choices)
        if choice.type not in HOSTED
    }
    if required and not names:
        raise InvalidRequest("a tool is required and none allowed", param="tool_choice.tools")
    return Tools(tuple(spec for name, spec in found.specs.items() if name in names), required=required)


def _chosen(found: _Found, choice: Choice, place: str) -> ToolSpec:
    if choice.type not in {FUNCTION, CUSTOM}:
        raise UnsupportedParameter(
            f"tools of type {choice.type!r:.60} cannot be chosen here", param=f"{place}.type"
        )
    name = full_name(choice.name or "", choice.namespace)
    if name not in found.specs:
        raise InvalidRequest(f"there is no tool {name!r:.140}", param=f"{place}.name")
    return found.specs[name]
