"""The verbs. Exit codes: 0 done; 1 done, with failed trials; 2 bad input, in one line; 75 not done, for what is said in one
line, can go on once that is mended; 130, 143 interrupted, can go on."""

import sys

import typer

from harness.cli import boards, confirming, making, measuring, moving, planning, reading, running, tables, taking, upkeep
from harness.cli.cluster import words_given
from harness.errors import HarnessError

app = typer.Typer(
    name="harness",
    help="Find out which attention belongs where in a convolutional network, and prove it."
    "\n\nStart with `harness new mystudy`, then `harness plan`, `harness run` and `harness report`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for module in (making, planning, running, confirming, measuring, reading, boards, taking, moving, tables, upkeep):
    app.add_typer(module.verbs)


def main() -> None:
    """The `harness` command: what a user got wrong is one line on stderr and exit code 2."""
    try:
        app(words_given())
    except HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)
