"""`claude-codectl`: shows and steers a running daemon over its control socket."""

from typing import Any, Final

import click

from claude_coded import __version__
from claude_coded.codectl import looking, steering
from claude_coded.codectl.console import PROGRAM, Console, Program, command, statuses
from claude_coded.guide import Argument, Section

PLACES: Final = Section(
    "Files",
    "The control socket: that of --socket, else of CLAUDE_CODED_SOCKET, else the first of these that a "
    "daemon listens on:\n\n"
    "\b\n"
    "  $XDG_RUNTIME_DIR/claude-coded/control.sock\n"
    "  /run/claude-coded/control.sock\n"
    "  ~/.local/state/claude-coded/control.sock\n"
    "  ~/.local/state/claude-coded/offline/control.sock",
)
EXAMPLES: Final = Section(
    "Examples",
    examples=(
        ("Watch what runs", "claude-codectl top"),
        ("See how a conversation came to where it is", "claude-codectl show my-conversation"),
        ("Restart without cutting an answer", "claude-codectl drain && systemctl restart claude-coded"),
    ),
)
ENVIRONMENT: Final = Section(
    "Environment",
    entries=(("CLAUDE_CODED_SOCKET", "The control socket, unless --socket names one."),),
    manual=True,
)
SEE_ALSO: Final = Section("See also", "claude-coded(8)", manual=True)

SHELLS: Final = ("bash", "zsh", "fish")


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"]},
    sections=(PLACES, statuses({}), EXAMPLES, ENVIRONMENT, SEE_ALSO),
)
@click.version_option(__version__, prog_name=PROGRAM)
def main() -> None:
    """Show and steer a running claude_coded daemon over its control socket.

    An ID is a conversation, TENANT/CONVERSATION where two tenants have one of the same name, or a worker, as
    w3. All commands take --socket and --json.
    """


@command(
    examples=(
        (
            "bash",
            "claude-codectl completion bash > ~/.local/share/bash-completion/completions/claude-codectl",
        ),
        ("zsh", 'claude-codectl completion zsh > "${fpath[1]}/_claude-codectl"'),
        ("fish", "claude-codectl completion fish > ~/.config/fish/completions/claude-codectl.fish"),
    ),
)
@click.argument("shell", cls=Argument, type=click.Choice(SHELLS), metavar="SHELL", help="bash, zsh or fish.")
@click.pass_obj
def completion(console: Console, shell: str) -> None:
    """Print a shell's completion script.

    It completes commands, options, and the IDs that a running daemon knows.
    """
    script = _script(shell)
    console.show({"shell": shell, "script": script}, script.splitlines())


def _script(shell: str) -> str:
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - rarely needed

    found: Any = get_completion_class(shell)
    return str(found(main, {}, PROGRAM, "_CLAUDE_CODECTL_COMPLETE").source())


for _command in (*looking.COMMANDS, *steering.COMMANDS, completion):
    main.add_command(_command)
