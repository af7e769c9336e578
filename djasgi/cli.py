"""The commands: parse, resolve, hand the plan on. Decides nothing."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from errno import EIO, ENOENT, ENOSPC, EPIPE
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from djasgi import __version__
from djasgi.errors import DjasgiError, ExitCode, ProjectError
from djasgi.kinds import Choice, FilePath, Flag, Kind, Repeated, complaint
from djasgi.options import OPTIONS, SECTIONS, Spec

COMMANDS = {
    "Run": ("serve", "manage"),
    "Understand": ("explain", "check", "servers"),
    "Operate": ("status", "reload", "stop"),
}


if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # generic since click 8.2 only


class _Value(_ParamType):
    """The click type of an option: its own kind does the work."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind.item if isinstance(kind, Repeated) else kind
        self.name = kind.metavar
        self.addresses = type(kind) is not Repeated and isinstance(kind, Repeated)
        if self.addresses:
            self.kind = kind

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        try:
            return self.kind.parse(value)
        except ValueError as error:
            self.fail(f"{complaint(error, value)}.", param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        if isinstance(self.kind, FilePath):
            return [CompletionItem(incomplete, type="file")]
        choices = self.kind.choices if isinstance(self.kind, Choice) else ()
        return [CompletionItem(word) for word in choices if word.startswith(incomplete)]


def _parameter(spec: Spec) -> click.Parameter:
    if spec.argument:
        return click.Argument([spec.field], required=False, type=_Value(spec.kind))
    if isinstance(spec.kind, Flag):
        flags = [*spec.flags]
        flags[-1] += f"/--no-{spec.name}" if spec.default or spec.toml else ""
        return click.Option(
            [spec.field, *flags], default=None, help=spec.help, is_flag=True
        )
    several = type(spec.kind) is Repeated
    return click.Option(
        [spec.field, *spec.flags],
        default=None,
        help=spec.help,
        metavar=spec.kind.metavar,
        multiple=several,
        type=_Value(spec.kind),
    )


class _Command(click.Command):
    """A command whose help groups the options in sections."""

    specs: tuple[Spec, ...] = ()
    """The options whose parameters are not made yet: only one command runs."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        self.params[:0] = [_parameter(spec) for spec in self.specs]
        self.specs = ()
        return super().get_params(ctx)

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in SECTIONS}
        own = []
        for param in self.get_params(ctx):
            spec = OPTIONS.get(param.name or "")
            record = param.get_help_record(ctx)
            if record is None:
                continue
            if spec is None:
                own += [record] if record[1] else []  # an argument is in the usage
            else:
                sections[spec.section].append((record[0], _described(spec)))
        for section, records in sections.items():
            if records:
                with formatter.section(section):
                    formatter.write_dl(records, col_max=26)
        with formatter.section("Options"):
            formatter.write_dl(own, col_max=26)


def _described(spec: Spec) -> str:
    names = ", ".join(filter(None, (spec.variable, spec.platform)))
    default = f"default: {spec.show(spec.default)}"
    if spec.default is None or spec.default == ():
        return f"{spec.help} [{names}]"
    return f"{spec.help} [{names}; {default}]"


class _Group(click.Group):
    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        width = max(len(name) for names in COMMANDS.values() for name in names)
        for title, names in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (name.ljust(width), self.commands[name].get_short_help_str(60))
                        for name in names
                    ],
                    col_max=10,
                )

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        self.format_commands(ctx, formatter)
        records = (param.get_help_record(ctx) for param in self.get_params(ctx))
        with formatter.section("Options"):
            formatter.write_dl([record for record in records if record])


def _options(*names: str) -> Callable[[click.Command], click.Command]:
    """Add the parameters of these options, or of all, to a command."""

    def add(command: click.Command) -> click.Command:
        assert isinstance(command, _Command)  # noqa: S101
        command.specs = tuple(OPTIONS[name] for name in names or OPTIONS)
        return command

    return add


def _given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed, and only that."""
    return {
        name: value
        for name, value in parameters.items()
        if name in OPTIONS and value is not None and value != ()
    }


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        reason = "does not exist any more"
        if error.errno != ENOENT:
            reason = f"cannot be read: {error.strerror}"
        raise ProjectError(
            f"The working directory {reason}.",
            hint="Change to the project's folder: cd DIR",
        ) from None


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 80}


@click.group(
    cls=_Group,
    context_settings=CONTEXT,
    subcommand_metavar="COMMAND [OPTIONS]",
    options_metavar="",
    epilog="djasgi COMMAND -h shows the options of a command.",
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.version_option(
    __version__,
    "-V",
    "--version",
    message="djasgi %(version)s",
    help="Show the version and exit.",
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run Django on ASGI. Finds your project, settles its settings, and serves it
    with uvicorn, hypercorn or daphne: the same options, the same behaviour.

    \b
        djasgi serve                     in your project's folder
        djasgi serve --env production    where people use it
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@_options()
@cli.command(cls=_Command, context_settings=CONTEXT)
@click.option("--dry-run", is_flag=True, help="Print what would run, like explain.")
def serve(*, dry_run: bool, **parameters: Any) -> int:
    """Serve, with workers and a graceful stop.

    APP is found by itself: ASGI_APPLICATION of the settings, else the project's
    asgi.py, else Django's own application.
    """
    # Imports make no garbage worth looking for; serving turns it on again.
    gc.disable()
    from djasgi import run
    from djasgi.plan import LaunchPlan, resolve

    def plan() -> LaunchPlan:
        return resolve("serve", _given(parameters), os.environ, _working_directory())

    if dry_run:
        from djasgi import explain

        click.echo(explain.text(plan(), every=False), color=True)
        return ExitCode.STOPPED
    return run.serve(plan)


@_options()
@cli.command("explain", cls=_Command, context_settings=CONTEXT)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people, or for machines.",
)
@click.option("--all", "every", is_flag=True, help="Show the defaults as well.")
def explain_command(*, output_format: str, every: bool, **parameters: Any) -> int:
    """What would run, and where each value comes from.

    Takes the same arguments as serve, starts nothing, and prints the nearest command
    line of the chosen server. Secrets are masked.
    """
    from djasgi import explain
    from djasgi.plan import resolve

    plan = resolve("serve", _given(parameters), os.environ, _working_directory())
    if output_format == "json":
        click.echo(explain.as_json(plan))
    else:
        click.echo(explain.text(plan, every=every), color=True)
    return ExitCode.STOPPED


LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")


@_options()
@cli.command("check", cls=_Command, context_settings=CONTEXT)
@click.option("--deploy", is_flag=True, help="Check as for production.")
@click.option("--probe", is_flag=True, help="Start a worker and ask it, too.")
@click.option(
    "--fail-level",
    type=click.Choice(LEVELS, case_sensitive=False),
    default="ERROR",
    show_default=True,
    help="The least level that makes the exit code 1.",
)
@click.option("--only", multiple=True, metavar="ID", help="Only this. Repeatable.")
@click.option("--skip", multiple=True, metavar="ID", help="Not this. Repeatable.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="For people, for machines, or as annotations.",
)
@click.option("--list", "listing", is_flag=True, help="List the checks and exit.")
@click.option("--explain", "explained", metavar="ID", help="Explain a check and exit.")
def check_command(
    *,
    deploy: bool,
    probe: bool,
    fail_level: str,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    output_format: str,
    listing: bool,
    explained: str | None,
    **parameters: Any,
) -> int:
    """What bites Django on ASGI, found before production.

    Takes the same arguments as serve and checks what it would serve; Django's own
    system checks are among them. Exit code 1 with findings at or above --fail-level.
    """
    # Neither imports nor syntax trees make garbage worth looking for.
    gc.disable()
    from djasgi import checking, findings, output, run
    from djasgi.checks.base import Level, all_checks, named
    from djasgi.logs import use_color
    from djasgi.plan import resolve

    if listing:
        click.echo(findings.listed(all_checks().values()))
        return ExitCode.STOPPED
    if explained:
        click.echo(findings.explanation(named(explained)))
        return ExitCode.STOPPED
    plan = resolve("check", _given(parameters), os.environ, _working_directory())
    run.vet(plan)
    request = checking.Request(deploy=deploy, probe=probe, only=only, skip=skip)
    report = checking.run(plan, request)
    match output_format:
        case "json":
            click.echo(findings.as_json(report))
        case "github":
            click.echo(findings.github(report))
        case _:
            color = use_color(sys.stdout, os.environ)
            click.echo(findings.text(report, color=color), color=True)
    if report.error is not None:
        output.report(report.error)
        return report.error.exit_code
    return ExitCode.FAILURE if report.reaches(Level[fail_level.upper()]) else 0


@cli.command(cls=_Command, context_settings=CONTEXT)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people, or for machines.",
)
def servers(*, output_format: str) -> int:
    """The three servers, and how each option is met."""
    from djasgi import reference

    if output_format == "json":
        click.echo(reference.servers_json())
    else:
        reference.print_servers()
    return ExitCode.STOPPED


@_options("project", "env", "settings", "env_file")
@cli.command(
    cls=_Command,
    context_settings=CONTEXT
    | {"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="[OPTIONS]",
)
@click.argument("command", nargs=-1, required=True, metavar="COMMAND [ARGS]...")
def manage(*, command: tuple[str, ...], **parameters: Any) -> int:
    """Run a manage.py command under the same environment.

    \b
        djasgi manage --env production migrate
    """
    from djasgi import managing
    from djasgi.plan import resolve

    plan = resolve(
        "manage",
        _given(parameters),
        os.environ,
        _working_directory(),
        application=False,
    )
    return managing.manage(plan, command)


def _instance(command: click.Command) -> click.Command:
    """Add the options that say which running djasgi is meant."""
    command.params[:0] = [
        click.Option(
            ["--pid"],
            type=click.IntRange(1),
            metavar="PID",
            help="The instance with this process id.",
        ),
        click.Option(
            ["--all", "every"], is_flag=True, help="All instances of this user."
        ),
    ]
    return command


@_options("project")
@_instance
@cli.command(cls=_Command, context_settings=CONTEXT)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people, or for machines.",
)
def status(
    *, output_format: str, pid: int | None, every: bool, project: Path | None
) -> int:
    """Show what is served: workers, requests, memory, the last reload.

    Of the project in this folder; outside of one, everything that djasgi serves.
    """
    from djasgi import operate

    found = operate.find(
        _working_directory(), os.environ, project=project, pid=pid, every=every
    )
    if output_format == "json":
        click.echo(operate.as_json(found))
    else:
        operate.show(found)
    return ExitCode.STOPPED


@_options("project")
@_instance
@cli.command("reload", cls=_Command, context_settings=CONTEXT)
@click.option("--no-wait", is_flag=True, help="Do not wait for how it ends.")
def reload_command(
    *, no_wait: bool, pid: int | None, every: bool, project: Path | None
) -> int:
    """Load new code, settings and options without losing a request.

    Waits for the outcome. When the new code does not get ready, the old code goes on
    serving, and the exit code is 3.
    """
    from djasgi import operate

    found = operate.find(
        _working_directory(), os.environ, project=project, pid=pid, every=every
    )
    return operate.reload(operate.only(found, "reload", every=every), wait=not no_wait)


@_options("project")
@_instance
@cli.command(cls=_Command, context_settings=CONTEXT)
@click.option("--no-wait", is_flag=True, help="Do not wait until it is gone.")
def stop(*, no_wait: bool, pid: int | None, every: bool, project: Path | None) -> int:
    """Finish the requests that are running, then stop."""
    from djasgi import operate

    found = operate.find(
        _working_directory(), os.environ, project=project, pid=pid, every=every
    )
    return operate.stop(operate.only(found, "stop", every=every), wait=not no_wait)


def main(argv: list[str] | None = None, prog_name: str = "djasgi") -> NoReturn:
    """Run the command line and exit with the documented code."""
    try:
        code = cli.main(argv, prog_name=prog_name, standalone_mode=False)
    except DjasgiError as error:
        from djasgi import output

        output.report(error)
        code = error.exit_code
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.Abort:
        code = 130
    except click.ClickException as error:
        code = _report_usage(error)
    except OSError as error:
        code = _report_system(error)
    _flush()
    sys.exit(int(code or 0))


def _report_system(error: OSError) -> int:
    """What the system may refuse to any command. Raises `error` if it is not that."""
    match error.errno:
        case code if code == EPIPE:
            return ExitCode.FAILURE  # whoever read our output has seen enough
        case code if code in (ENOSPC, EIO):
            reason = error.strerror
            click.echo(f"Error: The output cannot be written: {reason}.", err=True)
            click.echo("Send it somewhere else.", err=True)
            return ExitCode.FAILURE
    raise error


def _flush() -> None:
    """Write out what is left, or nothing when nobody reads it any more.

    The interpreter would try at its end, and change the exit code to 120.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_usage(error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "djasgi"
    message = " ".join(error.format_message().split())
    click.echo(f"Error: {message}", err=True)
    click.echo(f"Try: {path} --help", err=True)
    return ExitCode.USAGE
