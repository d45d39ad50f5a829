"""What several verbs take: their options, the console, and how a study is named."""

import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer
from rich.console import Console

from harness.cli.cluster import is_looked_after
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.study import Study

console = Console(highlight=False)
T = TypeVar("T", str, list[str])


def warn_of_passwords(context: typer.Context, option: typer.CallbackParam, value: T) -> T:
    """A URL whose password everybody on the machine can read is used as it is, and said to be one, in one line."""
    from harness.storage.tables import password_of

    source = context.get_parameter_source(option.name or "")
    urls = [value] if isinstance(value, str) else list(value)
    said = is_looked_after()  # by the process that looks after this one
    if source is not None and source.name == "COMMANDLINE" and not said and any(map(password_of, urls)):
        print(f"harness: {PASSWORD_SEEN}", file=sys.stderr)
    return value


PASSWORD_SEEN = (
    "note: a password on the command line is seen in the list of processes and kept in the shell's history; leave it out, "
    "and put it into ~/.pgpass or PGPASSWORD, or the whole URL into HARNESS_STORAGE"
)
Storage = Annotated[
    str,
    typer.Option(
        "--storage",
        envvar="HARNESS_STORAGE",
        help="Database URL of the studies, as in `sqlite:///lab.db` or `postgresql://me@host/lab`.",
        metavar="URL",
        callback=warn_of_passwords,
    ),
]
Target = Annotated[str, typer.Argument(help="A study file, a dotted module, or the name of a study in the database.")]
Settings = Annotated[
    list[str],
    typer.Option("--set", help="Another value for this run, e.g. `training.epochs=5`. Repeatable.", metavar="PATH=VALUE"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", envvar="HARNESS_DATA", help="Folder of the data (default: `data`).", metavar="DIR"),
]
Download = Annotated[bool, typer.Option("--download", help="Fetch cifar10 or cifar100 into the data folder first.")]
Runs = Annotated[
    str | None,
    typer.Option(
        "--runs",
        help="Folder of checkpoints (default: `runs` beside the database), or a store that fsspec knows, as in"
        " s3://bucket/runs.",
        metavar="PLACE",
    ),
]
Code = Annotated[list[Path], typer.Option("--code", help="Folder of your own modules. Repeatable.", metavar="DIR")]
Trials = Annotated[int | None, typer.Option("--trials", min=1, help="Stop when the study has this many trials.")]
BackendName = Annotated[
    Literal["ray", "local"], typer.Option("--backend", help="ray: workers on GPUs and cores; local: in this process.")
]
Concurrency = Annotated[
    int | None, typer.Option("--concurrency", min=1, help="Trials at once (default: as many as the machine has room for).")
]
Cpus = Annotated[int, typer.Option("--cpus-per-trial", min=1, help="Cores reserved for a trial.")]
GpuShare = Annotated[
    str | None,
    typer.Option(
        "--gpus-per-trial",
        help="GPUs of a trial: 0.25 puts four on one, `auto` as many as its free memory holds; 4 share each batch of a trial"
        " (default: 1, if there are any).",
        metavar="SHARE",
    ),
]
Gpus = Annotated[
    str | None,
    typer.Option("--gpus", help="GPUs to use, as `nvidia-smi` counts them: `2,3` (default: all).", metavar="N,N,..."),
]
TakeOver = Annotated[bool, typer.Option("--take-over", help="Take the study from a driver that seems to run it.")]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Run the configs of failed trials again, as new rows that name the old.")
]
Promote = Annotated[
    int | None,
    typer.Option(
        "--promote",
        min=1,
        help="Go on with the N best trials that were stopped early, from their checkpoints, as new rows that name the old.",
        metavar="N",
        show_default=False,
    ),
]
NoReuse = Annotated[
    bool, typer.Option("--no-reuse", help="Train also what another study of the database has finished, under the same key.")
]
ReuseFrom = Annotated[
    list[str],
    typer.Option(
        "--reuse-from",
        help="Another database whose finished trials count too, by key; it is only read. Repeatable.",
        metavar="URL",
        callback=warn_of_passwords,
    ),
]
Part = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="Run a part of the study alone, in a file of its own under `shards`: `3/32` is the third of 32. `harness copy`"
        " merges them.",
        metavar="I/N",
        show_default=False,
    ),
]
SplitArms = Annotated[
    bool, typer.Option("--split-arms", help="Split a design between its arms too, so that shards may outnumber seeds.")
]
NoTiming = Annotated[
    bool, typer.Option("--no-timing", help="Do not time a few steps where no past trial tells how long one takes.")
]
For = Annotated[
    str | None,
    typer.Option("--for", help="Start no epoch that would not end in time: `90s`, `20m`, `8h`, `2d`.", metavar="TIME"),
]
KeepWeights = Annotated[
    Literal["front", "all", "none"], typer.Option("--keep", help="Whose final weights stay under the runs folder.")
]
OnFinish = Annotated[
    str | None,
    typer.Option(
        "--on-finish",
        help="A command for when the run ends, however it does: it finds HARNESS_STUDY, HARNESS_STATE (done, failed,"
        " interrupted, error) and HARNESS_COMPLETE, _STOPPED, _FAILED, _LEFT in its environment.",
        metavar="CMD",
        show_default=False,
    ),
]
Trackers = Annotated[
    list[str],
    typer.Option(
        "--tracker",
        help="Show the trials in another tool too, by Ray Tune's own callbacks: `tensorboard` (files under the runs folder,"
        " with a store beside the database), `mlflow` or `wandb` (where their own environment variables say). Repeatable.",
        metavar="NAME",
        show_default=False,
    ),
]
Address = Annotated[str | None, typer.Option("--address", help="A running Ray cluster, e.g. `auto` or `host:6379`.")]
Margin = Annotated[
    float | None,
    typer.Option("--margin", min=0, help="The smallest difference that matters, in the metric's own unit.", metavar="D"),
]
Form = Annotated[
    Literal["latex", "markdown", "csv"] | None,
    typer.Option("--as", help="Print the table in this form.", show_default=False),
]

DATABASE = "sqlite:///harness.db"


GPU_NUMBERS = "write numbers of GPUs and commas, as nvidia-smi counts them: 2,3"


def numbers(text: str | None, option: str, rule: str) -> tuple[int, ...]:
    """Numbers as a user writes them, 3,17,20, each once; raises HarnessError, with the rule, for what is no list of them."""
    if text is None:
        return ()
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text, re.ASCII):
        raise HarnessError(f"{option} {text}: {rule}")
    return tuple(dict.fromkeys(map(int, text.split(","))))


def gpu_share(text: str | None) -> float | Literal["auto"] | None:
    """GPUs of a trial as a user writes them: 1, 0.25, 0 or auto."""
    if text is None or text == "auto":
        return "auto" if text else None
    try:
        share = float(text)
    except ValueError:
        share = -1
    if not 0 <= share < math.inf:
        raise HarnessError(f"--gpus-per-trial {text}: write 1, a share such as 0.25, 0 for none, or auto")
    return share


def seconds(text: str | None, option: str = "--for") -> float | None:
    """A stretch of time as a user writes it: 90s, 20m, 8h, 2d, or plain seconds."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip().lower())
    if match is None:
        raise HarnessError(f"{option} {text}: write a number and s, m, h or d, as in 20m or 8h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def named(target: str, storage: str, settings: list[str], data: Path | None, code: list[Path]) -> "tuple[Study, Path]":
    """A study by its file or its name in the database, and the folder of its data."""
    from harness.code import add_paths
    from harness.loading import is_study_file, load_study, override
    from harness.storage.reader import read_studies
    from harness.study import Study

    add_paths([str(folder.resolve()) for folder in code])
    if is_study_file(target):
        return override(load_study(target)[0], settings), data or Path("data")
    stored = read_studies(storage, target)[0]
    places = stored.attributes.get("places", {})
    add_paths(places.get("code", []))
    return override(Study.from_json(stored.attributes["asked"]), settings), data or Path(places.get("data", "data"))


def write_text(path: Path, text: str) -> None:
    """Writes a file whole and says where; a folder that is not there is one line."""
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise HarnessError(f"{path}: cannot be written ({error.strerror}); name a file in a folder that is there") from None
    console.print(f"wrote {path}", markup=False)
