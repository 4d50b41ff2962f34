"""How a command ends: one line on stderr for an error, one exit code for each kind of it."""

import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click

from alignlib import ranks, waits
from alignlib.cli import option_files, shells, start, waiting
from alignlib.cli.rules import Rule
from alignlib.cli.sections import LAST, arrange
from alignlib.records import disk
from alignlib.records.disk import DiskFull, StateError
from alignlib.records.jsonl import DataError
from alignlib.records.shown import one_line

FAILED, USAGE, BAD_DATA, INTERRUPTED, TERMINATED = 1, 2, 65, start.INTERRUPTED, ranks.TERMINATED


# Each is read once, when its library is imported; who has set one keeps it. libgomp's: two commands of a pipe share the
# cores. The others': libraries that have something to say of themselves say it where something has failed.
ENVIRONMENT = {"GOMP_SPINCOUNT": "2000", "HF_HUB_VERBOSITY": "error", "DATASETS_VERBOSITY": "error",
               "TORCH_CPP_LOG_LEVEL": "ERROR",
               # In bf16 on a CPU torch keeps 1,024 products by their shapes, twice; packs have ever other shapes.
               "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "128"}


class Terminated(Exception):
    """SIGTERM came and what there was to save is saved; the commands exit with 143."""


def quiet_pipe() -> None:
    """After the reader of standard output has gone: let the interpreter's own flush at exit find no pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def flush_or_lose() -> None:
    """After a disk was full, perhaps standard output's: let the interpreter's own flush at exit find no such one."""
    try:
        sys.stdout.flush()
    except OSError:
        quiet_pipe()


def to_nothing(descriptor: int) -> TextIO:
    """A standard stream that the caller has closed, now on /dev/null, where no file that is opened later can get."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return open(descriptor, "w", closefd=False)


class Command(click.Command):
    """A command with what ours have over click's: exit codes and one-line errors, by `run`.

    click's own `main` would take a closed pipe for a failure, an EOFError for Ctrl-C, and print a line for the latter.
    """

    logs = False  # whether standard output is a log that is in a file too, and so may be closed
    own = "Options"  # the title of options that are under no other
    sections: Mapping[str, str] = {}  # the others' titles, by name
    rules: Sequence[Rule] = ()  # which of them go together

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *rest: Any, **extra: Any) -> Any:
        name = prog_name or program()
        if (code := shells.answer(self, name)) is not None:
            sys.exit(code)
        words = list(sys.argv[1:] if args is None else args)
        flags: dict[str, bool] = {}  # where -v leaves word
        run(lambda: self.call(name, words, {**extra, "obj": flags}), name, flags, self.logs)

    def call(self, name: str, args: list[str], extra: Mapping[str, Any]) -> int:
        """Call the body with the options in `args`; the exit code."""
        words = option_files.expand(self, args)
        if args == sys.argv[1:]:  # with which --launch starts its processes: a pipe of options is read once
            sys.argv[1:] = words
        try:
            with self.make_context(name, words, **extra) as context:
                self.invoke(context)
        except click.exceptions.Exit as end:  # --help and the like
            return end.exit_code
        return 0

    def arranged(self, context: click.Context) -> dict[str, list[click.Option]]:
        """Its options, --help too, by the titles of their sections."""
        own_help = self.get_help_option(context)
        given = {**self.sections, own_help.name or "": LAST} if own_help else self.sections
        return arrange(self.get_params(context), given, self.own)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """--help's options, in sections."""
        for title, options in self.arranged(ctx).items():
            with formatter.section(title):
                formatter.write_dl([record for option in options if (record := option.get_help_record(ctx))])

    def invoke(self, ctx: click.Context) -> Any:
        """Call the body, unless an option is what JSON has not: bytes that are no text, but for files' names."""
        for parameter in self.params:
            if not isinstance(parameter.type, click.Path):
                must_be_json(ctx.params.get(parameter.name or ""), parameter, ctx)
        for rule in self.rules:
            rule.check(ctx)
        with waits.doing(waits.WORK):
            return super().invoke(ctx)


class Group(Command, click.Group):
    """A command of several subcommands."""

    command_class = Command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """--help's options, and its subcommands."""
        Command.format_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)


def must_be_json(value: object, parameter: click.Parameter, context: click.Context) -> None:
    """Raises BadParameter where a value, or a part of it, is not UTF-8 or beyond 64 bits: our files have no such."""
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise click.BadParameter(f"{value} does not fit 64 bits.", context, parameter)
    if isinstance(value, str):
        if not value.isascii() and value.encode(errors="replace").decode() != value and not os.path.isfile(value):
            raise click.BadParameter(f"{value!r} is not UTF-8", context, parameter)
    elif isinstance(value, list | tuple | dict):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            must_be_json(part, parameter, context)


def program() -> str:
    """The name that errors begin with: "al-score" for a file al_score.py, or a folder's __main__.py, as well."""
    path = Path(sys.argv[0])
    return (path.parent.name if path.stem == "__main__" else path.stem).replace("_", "-")


def run(body: Callable[[], int | None], prog_name: str | None = None, flags: Mapping[str, bool] = {},
        logs: bool = False) -> NoReturn:
    """Call `body` and exit: the one place where errors become exit codes (0, 1, 2, 65, 130, 143).

    flags: hold "verbose" by the time of an error that is to show its traceback; logs: see Command.
    """
    be_quiet()
    name = prog_name or program()
    sys.stderr = sys.stderr or to_nothing(2)
    if sys.stdout is None and not logs:
        print(f"{name}: standard output is closed", file=sys.stderr)
        sys.exit(FAILED)
    sys.stdout = sys.stdout or to_nothing(1)
    waiting.watch(name)
    if isinstance(sys.stdout, TextIOWrapper):  # what its encoding lacks (PYTHONIOENCODING=ascii) is escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    code, message = 0, None
    try:
        start.watch()
        code = body() or 0
        with disk.writing(None):
            sys.stdout.flush()
    except BrokenPipeError:
        quiet_pipe()
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Terminated as error:
        code, message = TERMINATED, str(error)
    except click.exceptions.NoArgsIsHelpError as error:
        code = USAGE
        error.show()
    except click.UsageError as error:
        code, message = USAGE, usage(error, name)
    except StateError as error:
        code, message = USAGE, str(error)
    except DataError as error:
        code, message = BAD_DATA, str(error)
    except Exception as error:
        code, message = USAGE if too_long(error) else FAILED, reason(error)
        flush_or_lose()
        if flags.get("verbose"):
            traceback.print_exc()
    if message is not None:
        ranks.report(f"{name}: {one_line(message)}", code)
    ranks.leave(code)


def usage(error: click.UsageError, name: str) -> str:
    """What is wrong with a command line; where that is its options, not a file or a folder, --help is pointed to.

    Some of click's errors do not say of which subcommand's options they are: then it is the command's, `name`.
    """
    message = error.format_message()
    of_options = type(error) is not click.UsageError or message.startswith(("-", "@", "Got unexpected"))
    return f"{message} (see {error.ctx.command_path if error.ctx else name} --help)" if of_options else message


def reason(error: Exception) -> str:
    """What has failed, in a line; a full disk by its own name, whichever library met it."""
    if isinstance(error, DiskFull):
        return str(error)
    if isinstance(error, click.ClickException):
        return error.format_message()
    number, file = disk.full(error), getattr(error, "filename", None)
    if too_long(error):
        return f"{file}: file name too long: give a shorter one"
    if number is None:
        return f"{type(error).__name__}: {error}"
    return os.strerror(number).lower() + (f": {os.path.dirname(file) or '.'}" if isinstance(file, str) else "")


def too_long(error: Exception) -> bool:
    """Whether no file can be called what one was to be called."""
    return isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG


def be_quiet() -> None:
    """Let libraries keep their warnings to themselves, unless they are asked for: -v, python -W, PYTHONWARNINGS."""
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    if logging.lastResort:  # what prints the log of those who have set up none
        logging.lastResort.setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
