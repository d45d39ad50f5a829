"""Large studies: seconds and memory of the verbs that read 20,000 and 100,000 trials, beside Optuna's own calls.

The rows are written by the ledger itself, which is told made-up curves: parameters, exact costs, configs, radii, provenance
and attributes are those of real trials of ResNet-8 with squeeze-excite and ExpAtt, on twenty epochs. Those of the larger
study are these several times over, with other keys and accuracies. Every measurement is a
process of its own, with its peak memory. The clock of `harness resume` runs until the trial itself begins, in a worker.

    python tests/benchmarks/size.py [--trials 20000 100000] [--server 20000] [--folder DIR]
"""

import argparse
import compileall
import json
import math
import multiprocessing
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machinery import machine

HERE = Path(__file__).resolve().parent
HARNESS = Path(sys.executable).parent / "harness"
NAME, EPOCHS = "sized", 20
FEW = 1000
"""Trials that Optuna copies."""
WRITTEN = 20_000
"""Trials that the ledger writes; of more, these are multiplied."""
SEARCHES = ("Evolution", "Tpe", "Bayesian")
STUDY = """
from harness.config import ExpAtt, ResNet, SqueezeExcite, Training
from harness.space import choose, span, vary
from harness.study import Bayesian, Evolution, Random, Study, Tpe

attention = choose(
    None,
    vary(SqueezeExcite, ratio=choose(4, 8, 16)),
    vary(
        ExpAtt,
        kernel=choose("gaussian", "laplacian", "cauchy"),
        radius=span(0.5, 8.0, log=True),
        radius_per="head",
        heads=choose(1, 2, 4),
    ),
)
STUDY = Study(
    name="sized",
    question="How large may a study be?",
    space=vary(ResNet, depth=8, width=choose(0.5, 1.0), stages=(None, attention, attention)),
    training=vary(Training, epochs=20, lr=span(0.01, 0.5, log=True), precision="fp32"),
    strategy={strategy}(trials={trials}),
    trial="sized_loop:run",
)
"""
LOOP = """
import time
from pathlib import Path

BEGAN = Path(__file__).with_name("began")

def run(context):
    BEGAN.write_text(str(time.time()))
    for epoch in range(1, context.training.epochs + 1):
        yield {"accuracy": epoch / 100, "loss": 1 / epoch}
"""
OPTUNA = {
    "load_study + best_trials": "len(optuna.load_study(study_name='sized', storage=url).best_trials)",
    "load_study + get_trials": "len(optuna.load_study(study_name='sized', storage=url).get_trials())",
    "load_study + trials_dataframe": "len(optuna.load_study(study_name='sized', storage=url).trials_dataframe())",
    "load_study + ask + suggest (TPE)": (
        "optuna.load_study(study_name='sized', storage=url, sampler=optuna.samplers.TPESampler())"
        ".ask({'training.lr': optuna.distributions.FloatDistribution(0.01, 0.5, log=True)}).params"
    ),
    "load_study + ask + suggest (NSGA-II)": (
        "optuna.load_study(study_name='sized', storage=url, sampler=optuna.samplers.NSGAIISampler())"
        ".ask({'training.lr': optuna.distributions.FloatDistribution(0.01, 0.5, log=True)}).params"
    ),
}
"""Each is what anyone would write, in a process of its own."""


# -- rows as the ledger writes them -----------------------------------------------------------------------------------


def fill(folder: Path, trials: int) -> str:
    """A study of so many finished trials in a database of its own; gives its URL."""
    from harness.execution.ledger import Ledger, Places, Rules
    from harness.loading import load_study
    from harness.preflight import checked
    from harness.run import Options, run_study
    from harness.storage.reader import read_records
    from harness.storage.store import Store
    from harness.trial import Outcome, Report

    folder.mkdir(parents=True, exist_ok=True)
    os.environ["HARNESS_CACHE"] = str(folder / "cache")
    for left in folder.glob("harness.db*"):  # of a run that was cut short
        left.unlink()
    (folder / "sized_loop.py").write_text(LOOP)
    for strategy in ("Random", *SEARCHES):
        (folder / study_file(strategy)).write_text(STUDY.format(strategy=strategy, trials=trials + 50))
    url = f"sqlite:///{folder}/harness.db"
    study, code = load_study(str(folder / study_file("Random")))
    options = Options(storage=url, backend="local", code=tuple(code), rules=Rules(trials=1))
    run_study(study, options)  # the study itself, and a first trial, as they are
    (first,) = read_records(url, 1)
    found = checked(study, url, options.data, tuple(code))
    rng, rules = random.Random(0), Rules(trials=min(trials, WRITTEN))
    with Store(url) as store:
        places = Places("data", str(folder / "runs"))
        ledger = Ledger(store, 1, found.study, found.info, places, found.price, sources=found.sources, rules=rules)
        while (assignment := ledger.next()) is not None:
            curve = tuple(points(assignment.config, rng))
            failed = assignment.number % 50 == 49
            outcome = Outcome(
                state="failed" if failed else "complete",
                metrics={} if failed else first.metrics | {"accuracy": curve[-1].accuracy, "loss": curve[-1].loss},
                device=first.device,
                provenance=first.provenance,
                reason="RuntimeError: made up" if failed else "",
                traceback="Traceback (most recent call last):\nRuntimeError: made up" if failed else "",
            )
            ledger.report(assignment.number, Report(curve[:3] if failed else curve, outcome))
    multiplied(url, trials // WRITTEN)
    return url


def filled(folder: Path, trials: int) -> str:
    """`fill` in a process of its own: the peak memory of this one would count as that of each that it begins."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        return apart.submit(fill, folder, trials).result()


def study_file(strategy: str) -> str:
    return f"study_{strategy.lower()}.py"


def multiplied(url: str, times: int) -> None:
    """The rows of a study so many times over, by SQL: each copy with keys, numbers and accuracies of its own."""
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        tables = {
            "trials": "trial_id + {ids}, number + {rows}, study_id, state, datetime_start, datetime_complete",
            "trial_params": "NULL, trial_id + {ids}, param_name, param_value, distribution_json",
            "trial_values": "NULL, trial_id + {ids}, objective, value - {less} * (objective = 0), value_type",
            "trial_intermediate_values": "NULL, trial_id + {ids}, step, intermediate_value, intermediate_value_type",
            "trial_user_attributes": (
                "NULL, trial_id + {ids}, key, CASE key WHEN 'key' THEN CASE WHEN trial_id IN {failed}"
                " THEN value_json ELSE '\"{copy}' || substr(value_json, 5) END WHEN 'metrics'"
                " THEN json_replace(value_json, '$.accuracy', json_extract(value_json, '$.accuracy') - {less})"
                " ELSE value_json END"
            ),
        }
        ids, rows = connection.execute("SELECT max(trial_id), count(*) FROM trials").fetchone()
        for index in range(1, times):
            given = {"ids": index * ids, "rows": index * rows, "less": index / 1e4, "copy": f"{index:03x}"}
            given["failed"] = "(SELECT trial_id FROM trials WHERE state = 'FAIL')"  # with other keys they would be run again
            for table, columns in tables.items():
                query = f"INSERT INTO {table} SELECT {columns.format(**given)} FROM {table} WHERE trial_id <= {ids}"
                connection.execute(query)


def points(config: dict[str, Any], rng: random.Random) -> Iterator[Any]:
    """A made-up curve; places with ExpAtt have radii that move, a head each."""
    from harness.record import Epoch

    stages = enumerate(config["network"]["stages"], start=1)
    starts = {f"{stage}.1": (one["radius"], one["heads"]) for stage, one in stages if one and one["kind"] == "expatt"}
    final = 0.8 + 0.02 * len(starts) + 0.01 * math.log10(config["training"]["lr"]) + rng.gauss(0, 0.02)
    for epoch in range(1, EPOCHS + 1):
        accuracy = round(final * (1 - math.exp(-epoch / 4)) + rng.gauss(0, 0.003), 6)
        radii = {
            place: tuple(round(radius * (1 + 0.01 * epoch * (head + 1)), 6) for head in range(heads))
            for place, (radius, heads) in starts.items()
        }
        seconds = round(rng.uniform(0.9, 1.1), 4)
        yield Epoch(epoch, accuracy, round(2 - accuracy, 6), round(2.2 - accuracy, 6), seconds, 0.9 * seconds, radii=radii)


# -- measuring --------------------------------------------------------------------------------------------------------


def measured(words: list[str], folder: Path) -> dict[str, Any]:
    """Seconds, seconds of the processor and peak memory (MB) of a process; of one that trains, the seconds until its first
    trial began."""
    began, log = folder / "began", folder / "printed"
    began.unlink(missing_ok=True)
    environment = os.environ | {"TMPDIR": str(folder), "HARNESS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    with log.open("w") as printed:
        wall, clock = time.time(), time.perf_counter()
        process = subprocess.Popen(words, cwd=folder, stdout=printed, stderr=subprocess.STDOUT, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - clock
    process.returncode = os.waitstatus_to_exitcode(status)
    with_failed = 1 if words[0] == str(HARNESS) else 0  # its exit code where trials have failed
    if process.returncode not in (0, with_failed):
        sys.exit(f"{' '.join(words)}: exit code {process.returncode}\n{log.read_text()[-4000:]}")
    if began.exists():
        seconds = float(began.read_text()) - wall
    processor = round(used.ru_utime + used.ru_stime, 2)
    return {"seconds": round(seconds, 2), "processor_seconds": processor, "memory_mb": used.ru_maxrss // 1024}


def verb(url: str, *words: str) -> list[str]:
    return [str(HARNESS), *words, "--storage", url]


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


OURS = {
    "harness status": ["status", NAME],
    "harness report": ["report", NAME, "--out", "page"],
    "harness export": ["export", NAME, "--as", "csv"],
}
"""Verbs that read."""
PARTS = {
    "front, from Python": "from harness.results import open_study\nopen_study('sized', url).front()",
    "page data, from Python": (
        "from harness.results import open_study\nfrom harness.report.facts import gather\n"
        "from harness.report.page import data\nfound = open_study('sized', url)\n"
        "data([gather(found.study, found.attributes, found.records)])"
    ),
}


def reading(url: str, folder: Path, theirs: Iterable[str]) -> dict[str, Any]:
    """The verbs and calls that read, beside Optuna's."""
    found = {what: measured(verb(url, *words), folder) for what, words in OURS.items()}
    head = f"url = {url!r}\n"
    found |= {what: measured(python(head + text), folder) for what, text in PARTS.items()}
    return found | {f"Optuna: {what}": measured(python(f"import optuna\n{head}{OPTUNA[what]}"), folder) for what in theirs}


def going_on(url: str, folder: Path, trials: int) -> dict[str, Any]:
    """From the command to a trial that runs: `harness resume`, and `harness run` with another search."""
    few = ["--concurrency", "1", "--code", str(folder)]
    found = {"harness resume (Random)": measured(verb(url, "resume", NAME, "--trials", str(trials + 1), *few), folder)}
    for more, strategy in enumerate(SEARCHES, start=2):
        words = ["run", study_file(strategy), "--trials", str(trials + more), *few]
        found[f"harness run ({strategy})"] = measured(verb(url, *words), folder)
    return found


def copies(url: str, folder: Path, server: str | None) -> dict[str, Any]:
    """`harness copy` into an empty database and again into the same; by way of a server and back where there is one."""
    made = folder / "copied.db"
    made.unlink(missing_ok=True)
    target, found = f"sqlite:///{made}", {}
    copy = [str(HARNESS), "copy"]
    if server is None:
        found["harness copy, SQLite to SQLite"] = measured([*copy, url, target], folder)
    else:
        found["harness copy, SQLite to PostgreSQL"] = measured([*copy, url, server], folder)
        found["harness copy, PostgreSQL to SQLite"] = measured([*copy, server, target], folder)
    found["harness copy again, nothing new"] = measured([*copy, url, target], folder)
    made.unlink()
    return found


def optuna_copy(url: str, folder: Path, trials: int) -> dict[str, Any]:
    """`optuna.copy_study` of a study of so many trials, which are few, for each takes it some commits."""
    made = folder / "copied.db"
    made.unlink(missing_ok=True)
    call = f"from_study_name='{NAME}', from_storage={url!r}, to_storage='sqlite:///{made}'"
    found = measured(python(f"import optuna\noptuna.copy_study({call})"), folder)
    made.unlink()
    return {f"Optuna: copy_study of {trials:,} trials": found}


def of_size(trials: int, folder: Path) -> dict[str, Any]:
    """A study in SQLite of so many trials, made unless the folder holds one."""
    url, clock = f"sqlite:///{folder}/harness.db", time.perf_counter()
    if not (folder / "filled").exists():
        filled(folder, trials)
        (folder / "filled").write_text(f"{time.perf_counter() - clock:.1f}")
    print(f"{trials:,} trials in {(folder / 'harness.db').stat().st_size / 1e6:,.0f} MB", flush=True)
    theirs = list(OPTUNA)[: None if trials <= WRITTEN else 1]  # which take minutes
    name = f"{trials:,}, SQLite"
    found = told(name, copies(url, folder, None))
    if trials == WRITTEN:
        found |= told(f"{FEW:,}, SQLite", optuna_copy(filled(folder / "few", FEW), folder, FEW))
    with twin(folder) as (url, work):
        found |= told(name, going_on(url, work, trials))
    with twin(folder) as (url, work):
        return found | told(name, reading(url, work, theirs))


@contextmanager
def twin(folder: Path) -> Iterator[tuple[str, Path]]:
    """The study once more, for what writes: to go on, and Optuna's `ask`."""
    work = folder / "work"
    work.mkdir(exist_ok=True)
    try:
        for path in [folder / "harness.db", *folder.glob("*.py")]:
            shutil.copy(path, work)
        shutil.copytree(folder / "cache", work / "cache")  # as a study of so many trials has it
        yield f"sqlite:///{work}/harness.db", work
    finally:
        shutil.rmtree(work)


def on_server(trials: int, folder: Path) -> dict[str, Any]:
    """The same study in PostgreSQL."""
    sys.path.insert(0, str(HERE.parents[1]))
    from tests.postgres import Server

    server = Server()
    try:
        url = server.url(server.fresh())
        name = f"{trials:,}, PostgreSQL"
        found = told(name, copies(f"sqlite:///{folder}/harness.db", folder, url))
        found |= told(name, reading(url, folder, list(OPTUNA)[:1]))
        return found | told(name, going_on(url, folder, trials))
    finally:
        server.close()


def told(where: str, found: dict[str, Any]) -> dict[str, Any]:
    for what, one in found.items():
        times = f"{one['seconds']:.2f} s ({one['processor_seconds']:.2f} s at work)"
        print(f"{where}: {what}: {times}, {one['memory_mb']} MB", flush=True)
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """A column for each size and database."""
    lines = [f"| | {' | '.join(found)} |", "|---|" + "---|" * len(found)]
    for what in dict.fromkeys(what for each in found.values() for what in each):
        cells = [each.get(what) for each in found.values()]
        shown = (f"{cell['seconds']:.1f} s, {cell['memory_mb']:,} MB" if cell else "" for cell in cells)
        lines.append(f"| {what} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="*", default=[20_000, 100_000], help="sizes of studies in SQLite")
    parser.add_argument("--server", type=int, nargs="*", default=[20_000], help="those of them to copy to PostgreSQL too")
    parser.add_argument("--folder", type=Path, help="where studies are made, and found again the next time")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "size.json")
    given = parser.parse_args()
    compileall.compile_dir(HERE.parents[1] / "harness", quiet=1)  # as an installation does
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="hb-") as made:
        for trials in given.trials:
            folder = (given.folder or Path(made)).resolve() / str(trials)
            found[f"{trials:,} in SQLite"] = of_size(trials, folder)
            if trials in given.server:
                found[f"{trials:,} in PostgreSQL"] = on_server(trials, folder)
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps({"machine": machine(), "found": found}, indent=1) + "\n")
    print(f"\n{table(found)}")


if __name__ == "__main__":
    main()
