"""`claude-coded`: the command line."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from claude_coded import __version__, check, guide, logs, manual
from claude_coded.aside import SWITCH
from claude_coded.configuration import Source
from claude_coded.daemon import Daemon
from claude_coded.errors import ConfigurationError
from claude_coded.plan import Plan, handed_over
from claude_coded.prctl import keep_to_itself
from claude_coded.process import watch_by_descriptors
from claude_coded.settings import SYSTEM_CONFIG, Spec, sections, specs
from claude_coded.supervisor import supervise, this_program
from claude_coded.systemd import inherited_sockets

YOUNG: Final = 5000
"""New objects after which the collector looks at them: Python's own 700 come in the middle of each turn."""

log = logging.getLogger(__name__)


def setting_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for every setting, and one for the file of them."""
    for title, settings in reversed(list(sections())):
        for spec in reversed(settings):
            command = click.option(
                spec.flag,
                spec.key,
                cls=guide.Option,
                section=title,
                metavar=spec.metavar,
                help=help_text(spec),
            )(command)
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"TOML file of settings. Default: {SYSTEM_CONFIG}, if there is one. [CLAUDE_CODED_CONFIG]",
    )(command)


def help_text(spec: Spec) -> str:
    """Return an option's help: what it does, its default, its variable."""
    default = f" Default: {spec.unset}." if spec.unset else ""
    return f"{spec.help}{default} [{spec.variable}]"


def hide_secrets(given: Mapping[str, str]) -> None:
    """Start anew with secrets in the environment if there are any among the flags: `ps` shows those."""
    secrets = {spec.flag: spec.variable for spec in specs() if spec.secret and spec.key in given}
    if not secrets:
        return
    arguments = iter(sys.argv[1:])
    kept = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag in secrets:
            os.environ[secrets[flag]] = value if equals else next(arguments)
        else:
            kept.append(argument)
    os.execv(sys.executable, [*this_program(), *kept])  # noqa: S606 - ourselves


class DefaultGroup(guide.Guided, click.Group):
    """A group that runs `serve` when no command is named."""

    command_class = guide.Guided

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `serve` first where neither a command nor a flag of the group is."""
        if not args or (args[0] not in self.commands and args[0] not in {"-h", "--help", "--version"}):
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, _: click.Context) -> list[str]:
        """Return the commands' names as they stand in the help."""
        return list(self.commands)


@click.group(
    cls=DefaultGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    sections=(manual.ENVIRONMENT, manual.FILES, manual.SIGNALS, manual.SERVE_EXAMPLES, manual.SEE_ALSO),
)
@click.version_option(__version__, prog_name="claude-coded")
def main() -> None:
    """Serve an OpenAI-compatible API in front of a pool of Claude Code processes.

    Without a command it serves. The settings are options of `claude-coded serve` and of `claude-coded check`:
    their --help lists them. What runs is shown and steered by `claude-codectl`.
    """


@main.command(sections=(manual.SETTINGS, manual.SIGNALS, manual.SERVE_STATUS, manual.SERVE_EXAMPLES))
@click.option("--offline", is_flag=True, help="Use a built-in scripted model: no key, no network.")
@click.option("--reload", is_flag=True, help="Restart when the code changes: for development.")
@setting_flags
def serve(config: Path | None, offline: bool, reload: bool, **flags: str | None) -> None:
    """Run the daemon.

    It serves HTTP at http://127.0.0.1:3000/v1 unless told otherwise, and claude-codectl on a Unix socket. In
    the foreground: systemd, or a container, keeps it running.

    With --offline nothing mixes with real conversations: database and HOME are others. With --reload the port
    stays open over a restart: running turns are drained, and what comes meanwhile waits for the new code. It
    needs the library watchfiles (the extra `reload`).
    """
    given = {key: value for key, value in flags.items() if value is not None}
    hide_secrets(given)
    keep_to_itself()
    source = Source(given, dict(os.environ), config)
    try:
        settings = source.load()
        logs.configure(settings.logs.level, settings.logs.format)
        status = supervise(source, offline=offline) if reload else _serve(source, offline=offline)
    except (ConfigurationError, OSError) as error:
        click.echo(f"claude-coded: {error}", err=True)
        status = 1
    # The server's native threads may abort a normal exit of the interpreter.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@main.command("check", sections=(manual.SETTINGS, manual.CHECK_STATUS, manual.CHECK_EXAMPLES))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object, for programs.")
@setting_flags
def check_command(config: Path | None, as_json: bool, **flags: str | None) -> None:
    """Say what keeps the daemon from working, and what to do.

    Run it with the options, the environment and as the user of the daemon. It looks at the configuration,
    Claude Code, the model's key (by a request that costs nothing), the user, directories, clients' keys, the
    port and the control socket, and prints a line for each. It changes nothing. A daemon that runs is no
    fault.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    hide_secrets(given)
    findings = check.examine(given, os.environ, config)
    click.echo(check.as_json(findings) if as_json else check.as_text(findings))
    sys.exit(check.failed(findings))


def _serve(source: Source, *, offline: bool) -> int:
    logs.keep_crashes(os.environ)
    handed = handed_over(inherited_sockets(os.environ, os.getpid()))
    plan = Plan.make(source.load(), os.environ, offline=offline, handed=handed)
    watch_by_descriptors()
    asyncio.run(_main(plan, source))
    return 0


async def _main(plan: Plan, source: Source) -> None:
    daemon = Daemon(plan, source)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop)
    loop.add_signal_handler(signal.SIGHUP, daemon.reload_soon)
    # The work for a large request takes turns with the loop, not the other way round.
    sys.setswitchinterval(SWITCH)
    # What stands now stays: the collector need not look at it again and again.
    gc.freeze()
    gc.set_threshold(YOUNG)
    await daemon.run()
