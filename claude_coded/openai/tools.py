"""The client's tools: `tools` and what is said of them, and the deprecated `functions`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from claude_coded.errors import InvalidRequest, UnsupportedParameter
from claude_coded.openai.schemas import SchemaCheck, object_schema
from claude_coded.openai.wire import convert
from claude_coded.turn import Tools, ToolSpec

MAX_NAME: Final = 64
NO_PARAMETERS: Final[Mapping[str, Any]] = {"type": "object", "properties": {}}


class Function(Struct, frozen=True):
    """A function that may be called."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct, frozen=True):
    """A tool: a function, or of a type that is not supported."""

    type: str
    function: Function | None = None


class FunctionName(Struct, frozen=True):
    """A function that is chosen."""

    name: str


class NamedTool(Struct, frozen=True):
    """A tool that is chosen."""

    type: str
    function: FunctionName | None = None


class AllowedTools(Struct, frozen=True):
    """The tools of which some may be called."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class ToolChoice(Struct, frozen=True):
    """A choice by name: of one tool, or of some."""

    type: str
    function: FunctionName | None = None
    allowed_tools: AllowedTools | None = None


class ToolFields(Struct, frozen=True):
    """The fields of a request that are about tools."""

    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Function] | None = None
    function_call: Literal["none", "auto"] | FunctionName | None = None


def parse_tools(body: Mapping[str, Any]) -> Tools:
    """Return the tools that may be called. Raises InvalidRequest and UnsupportedParameter.

    Of functions one is called at a time: an answer has room for one.
    """
    if body.keys().isdisjoint(ToolFields.__struct_fields__):
        return Tools()  # as in most requests
    fields = convert(body, ToolFields)
    if fields.tools and fields.functions:
        raise InvalidRequest("functions are deprecated; they do not go with tools", param="functions")
    by_tools = _choose_tools(_tool_specs(fields.tools or ()), fields.tool_choice)
    by_functions = _choose_function(_function_specs(fields.functions or ()), fields.function_call)
    if fields.functions:
        return replace(by_functions, parallel=False)
    return replace(by_tools, parallel=fields.parallel_tool_calls is not False)


# What there is -----------------------------------------------------------------------------------------


def _tool_specs(tools: Sequence[Tool]) -> tuple[ToolSpec, ...]:
    specs: dict[str, ToolSpec] = {}
    check = SchemaCheck()
    for index, tool in enumerate(tools):
        place = f"tools[{index}]"
        if tool.type != "function":
            raise UnsupportedParameter(
                f"tools of type {tool.type!r} are not supported", param=f"{place}.type"
            )
        if tool.function is None:
            raise InvalidRequest("a tool has a function", param=f"{place}.function")
        _add(specs, tool.function, f"{place}.function", check)
    return tuple(specs.values())


def _function_specs(functions: Sequence[Function]) -> tuple[ToolSpec, ...]:
    specs: dict[str, ToolSpec] = {}
    check = SchemaCheck()
    for index, function in enumerate(functions):
        _add(specs, function, f"functions[{index}]", check)
    return tuple(specs.values())


def _add(specs: dict[str, ToolSpec], function: Function, place: str, check: SchemaCheck) -> None:
    name = check_name(function.name, f"{place}.name")
    if name in specs:
        raise InvalidRequest(f"there are two functions {name!r}", param=f"{place}.name")
    parameters = object_schema(function.parameters or NO_PARAMETERS, f"{place}.parameters")
    if function.strict:
        check(parameters, f"{place}.parameters")  # calls are held against it
    specs[name] = ToolSpec(name, function.description or "", parameters, bool(function.strict))


def check_name(name: str, param: str) -> str:
    """Return the name. Raises InvalidRequest."""
    if not 0 < len(name) <= MAX_NAME or not name.isprintable() or name.isspace():
        raise InvalidRequest(f"a name has 1 to {MAX_NAME} characters", param=param)
    return name


# What is chosen ----------------------------------------------------------------------------------------


def _choose_tools(specs: tuple[ToolSpec, ...], choice: str | ToolChoice | None) -> Tools:
    match choice:
        case None | "auto":
            return Tools(specs)
        case "none":
            return Tools()
    if not specs:
        raise InvalidRequest("there are no tools to choose from", param="tool_choice")
    if isinstance(choice, ToolChoice):
        return _chosen(specs, choice)
    return Tools(specs, required=True)


def _chosen(specs: tuple[ToolSpec, ...], choice: ToolChoice) -> Tools:
    match choice:
        case ToolChoice(type="function", function=FunctionName(name)):
            return Tools((_named(specs, name, "tool_choice.function.name"),), required=True)
        case ToolChoice(type="allowed_tools", allowed_tools=AllowedTools() as allowed):
            return _allowed(specs, allowed)
        case ToolChoice(type="function" | "allowed_tools" as kind):
            raise InvalidRequest("this says what is chosen", param=f"tool_choice.{kind}")
    raise UnsupportedParameter(f"tools of type {choice.type!r} are not supported", param="tool_choice.type")


def _allowed(specs: tuple[ToolSpec, ...], allowed: AllowedTools) -> Tools:
    """Return the tools that are allowed, in the order in which they were given."""
    place, known, names = "tool_choice.allowed_tools.tools", {spec.name for spec in specs}, set()
    for index, tool in enumerate(allowed.tools):
        if tool.type != "function" or tool.function is None:
            raise UnsupportedParameter("only functions are supported", param=f"{place}[{index}].type")
        names.add(_known(tool.function.name, known, f"{place}[{index}].function.name"))
    required = allowed.mode == "required"
    if required and not names:
        raise InvalidRequest("a tool is required and none allowed", param=place)
    return Tools(tuple(spec for spec in specs if spec.name in names), required=required)


def _choose_function(specs: tuple[ToolSpec, ...], choice: str | FunctionName | None) -> Tools:
    if isinstance(choice, FunctionName):
        return Tools((_named(specs, choice.name, "function_call.name"),), required=True)
    return Tools() if choice == "none" else Tools(specs)


def _named(specs: tuple[ToolSpec, ...], name: str, param: str) -> ToolSpec:
    _known(name, {spec.name for spec in specs}, param)
    return next(spec for spec in specs if spec.name == name)


def _known(name: str, names: Collection[str], param: str) -> str:
    if name not in names:
        raise InvalidRequest(f"there is no function {name!r}", param=param)
    return name
