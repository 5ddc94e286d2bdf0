"""The `finesieve` command: its verbs, and how it ends. Verbs import what is heavy inside, so that --help is instant."""

from __future__ import annotations

import errno
import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Annotated

import typer

from filters.cli.annotate import annotate
from filters.cli.compare import compare
from filters.cli.evaluate import evaluate
from filters.cli.filter import filter_command
from filters.cli.import_model import import_model_command
from filters.cli.init import init
from filters.cli.inspect import inspect
from filters.cli.leaks import leaks
from filters.cli.read import read
from filters.cli.schema import schema
from filters.cli.score import score
from filters.cli.select import select
from filters.cli.status import status
from filters.cli.train import train
from filters.cli.verify import verify
from filters.errors import FinesieveError, without_secrets
from filters.terminal import guard_streams

_log = logging.getLogger("finesieve")
_PATH_ERRORS = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM)

app = typer.Typer(
    name="finesieve",
    help="Train a classifier from a judge's labels, filter web dumps with it, inspect the scores.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
VERBS: dict[str, Callable[..., None]] = {
    "init": init,
    "schema": schema,
    "annotate": annotate,
    "train": train,
    "evaluate": evaluate,
    "import-model": import_model_command,
    "score": score,
    "filter": filter_command,
    "status": status,
    "verify": verify,
    "inspect": inspect,
    "compare": compare,
    "select": select,
    "read": read,
    "leaks": leaks,
}
for _name, _verb in VERBS.items():
    app.command(_name)(_verb)


def _print_version(wanted: bool) -> None:
    if wanted:
        from filters import __version__

        print(f"finesieve {__version__}")
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no plan, progress and summary of a run.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show where an error came from, and the logs of libraries.")
    ] = False,
) -> None:
    """Options of every command: finesieve -q filter CONFIG."""
    context.obj = quiet
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")


def main() -> None:
    """Run the command; a user's mistake ends in one message and exit status 1, never in a traceback.

    SIGTERM ends a verb as Ctrl-C does, with exit status 143 (Ctrl-C: 130).
    """
    terminated = False

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True
        interrupt = signal.getsignal(signal.SIGINT)
        if callable(interrupt):
            interrupt(signal.SIGINT, frame)
        else:  # a shell ignores SIGINT for what it runs in the background
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    guard_streams()
    try:
        app()
    except (FinesieveError, OSError) as error:
        message = str(error)
        if isinstance(error, OSError):
            if error.filename is None or error.errno not in _PATH_ERRORS:
                raise
            message = f"{without_secrets(str(error.filename))}: {error.strerror}"
        sys.stderr.write(f"finesieve: {message}\n")
        _log.info("where the error came from", exc_info=error)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as error:
        # Typer turns Ctrl-C into status 130, without a word.
        if isinstance(error, SystemExit) and error.code != 130:
            raise
        sys.stderr.write("finesieve: terminated\n" if terminated else "finesieve: interrupted\n")
        sys.exit(143 if terminated else 130)
