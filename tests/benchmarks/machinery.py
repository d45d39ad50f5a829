"""What the machinery costs: milliseconds of an empty trial, two at a time, ours beside the obvious stack, in one go.

Every trial has six parameters, ten attributes of the user's, ten epochs and three objectives, and trains nothing. Each run
is a process of its own; rounds of all stacks alternate, so that what else the machine does meets them all. A trial's cost
is the slope between two marks: the clock stops with the last row, and starts when the first WARM rows are finished, so that
neither the start of Ray nor that of the first workers counts. For the stacks of ours also: one long study, in which the
last tenth is compared with the first (both after the warm-up), and the driver's memory over time.

    python tests/benchmarks/machinery.py [--rounds 3] [--trials 300] [--long 2000 10000]
"""

import argparse
import json
import math
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WARM = 20
"""Finished trials after which the clock starts."""
EPOCHS = 10
STACKS = ("ours, Ray + SQLite", "ours, local + SQLite", "OptunaSearch + RDB storage in tune.Tuner")
LOOP = """
import math

def run(context):
    extras = {f"extra_{index}": float(index) for index in range(10)}
    for epoch in range(1, 11):
        yield {"accuracy": (epoch + math.sin(1e6 * context.training.lr)) / 11, "loss": 1 / epoch, **extras}
"""


# -- what runs in a process of its own --------------------------------------------------------------------------------


def ours(backend: str, strategy: str, trials: int, folder: Path, profiled: bool) -> dict[str, Any]:
    """A study of empty trials by the public API; marks are taken when rows are finished."""
    from harness.config import ExpAtt, ResNet, Training
    from harness.execution.backend import Resources
    from harness.execution.ledger import Ledger, Running, Watcher
    from harness.run import Options, run_study
    from harness.space import choose, span, vary
    from harness.study import Evolution, Random, Study
    from harness.trial import Outcome

    (folder / "empty_loop.py").write_text(LOOP)
    slot = vary(ExpAtt, kernel=choose("gaussian", "laplacian", "cauchy"), radius=span(0.5, 8.0, log=True))
    study = Study(
        name="empty",
        space=vary(ResNet, depth=8, width=choose(0.5, 1.0), stages=(None, slot, slot)),
        training=vary(Training, epochs=EPOCHS, lr=span(0.01, 0.5, log=True)),
        strategy=Evolution(trials=trials) if strategy == "evolution" else Random(trials=trials),
        trial="empty_loop:run",
    )
    marks: list[float] = []
    memory: list[int] = []

    class Clock(Watcher):
        def ended(self, ledger: Ledger, running: Running, outcome: Outcome) -> None:
            assert outcome.state == "complete", outcome.reason
            marks.append(time.perf_counter())
            if len(marks) % max(1, trials // 20) == 0:
                memory.append(resident())

    options = Options(
        storage=f"sqlite:///{folder}/harness.db",
        backend=backend,  # type: ignore[arg-type]
        resources=Resources(concurrency=2),
        code=(str(folder),),
    )
    with profile(profiled):
        found = run_study(study, options, watcher=Clock())
    assert found.complete == trials and len(marks) == trials
    return {"marks": [mark - marks[0] for mark in marks], "memory_mb": memory}


def obvious(trials: int, folder: Path) -> dict[str, Any]:
    """What anyone would write: a function trainable, OptunaSearch with a database, defaults everywhere."""
    import optuna
    import ray
    from optuna.storages import RDBStorage
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    def trial(config: dict[str, Any]) -> None:
        for epoch in range(1, EPOCHS + 1):
            found = {
                "accuracy": (epoch + math.sin(1e6 * config["lr"])) / 11,
                "params": config["width"],
                "macs": config["radius_2"],
            }
            tune.report(found | {f"extra_{index}": float(index) for index in range(10)})

    space: dict[str, Any] = {"lr": tune.loguniform(0.01, 0.5), "width": tune.choice([0.5, 1.0])}
    for stage in (2, 3):
        space[f"kernel_{stage}"] = tune.choice(["gaussian", "laplacian", "cauchy"])
        space[f"radius_{stage}"] = tune.loguniform(0.5, 8.0)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = f"sqlite:///{folder}/obvious.db"
    search = OptunaSearch(
        metric=["accuracy", "params", "macs"], mode=["max", "min", "min"], study_name="empty", storage=RDBStorage(url)
    )
    ray.init(address="local", include_dashboard=False, log_to_driver=False, _temp_dir=str(folder))
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(search_alg=search, num_samples=trials, max_concurrent_trials=2),
        run_config=tune.RunConfig(storage_path=str(folder / "results")),
    )
    tuner.fit()
    ray.shutdown()
    with sqlite3.connect(folder / "obvious.db") as connection:
        query = "SELECT (julianday(datetime_complete) - 2440587.5) * 86400.0 FROM trials WHERE state = 'COMPLETE' ORDER BY 1"
        marks = [mark for (mark,) in connection.execute(query)]
    assert len(marks) == trials
    return {"marks": [mark - marks[0] for mark in marks], "memory_mb": []}


class profile:
    """cProfile of this process's main thread, printed by own time and by whole time."""

    def __init__(self, wanted: bool) -> None:
        import cProfile

        self._profile = cProfile.Profile() if wanted else None

    def __enter__(self) -> None:
        if self._profile:
            self._profile.enable()

    def __exit__(self, *_: object) -> None:
        if self._profile:
            import pstats

            self._profile.disable()
            for order in ("tottime", "cumtime"):
                pstats.Stats(self._profile, stream=sys.stderr).sort_stats(order).print_stats(35)


def resident() -> int:
    """Megabytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20


# -- the comparison ---------------------------------------------------------------------------------------------------


def measured(stack: str, trials: int, strategy: str = "evolution") -> dict[str, Any]:
    """Runs one stack in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="hb-") as folder:
        words = [sys.executable, __file__, "--stack", stack, "--trials", str(trials), "--folder", folder]
        words += ["--strategy", strategy]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | {"TMPDIR": folder})
        if done.returncode:
            sys.exit(f"{stack}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def slope(marks: list[float]) -> float:
    """Milliseconds a trial between two marks."""
    return 1000 * (marks[-1] - marks[0]) / (len(marks) - 1)


def long_study(stack: str, trials: int, strategy: str) -> dict[str, Any]:
    found = measured(stack, trials, strategy)
    marks = found["marks"][WARM:]
    tenth = len(marks) // 10
    first, last = slope(marks[: tenth + 1]), slope(marks[-tenth - 1 :])
    return {
        "ms_a_trial": round(slope(marks), 2),
        "first_tenth_ms": round(first, 2),
        "last_tenth_ms": round(last, 2),
        "slower_percent": round(100 * (last / first - 1), 1),
        "memory_mb": found["memory_mb"],
    }


def machine() -> dict[str, Any]:
    words = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":")[1].strip() for line in words.splitlines() if line.startswith("model name")), "")
    packages = ("attention-harness", "ray", "optuna", "sqlalchemy", "torch")
    return {
        "cpu": model or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in packages}
        | {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version},
        "load_before": round(os.getloadavg()[0], 2),
    }


def compare(rounds: int, trials: int, obvious_trials: int, lengths: list[int], out: Path) -> None:
    found: dict[str, Any] = {"machine": machine(), "trials": trials, "obvious_trials": obvious_trials, "rounds": rounds}
    costs: dict[str, list[float]] = {stack: [] for stack in STACKS}
    for index in range(rounds):
        for stack in STACKS:
            many = obvious_trials if stack == STACKS[2] else trials
            costs[stack].append(slope(measured(stack, many)["marks"][WARM:]))
            print(f"round {index + 1}: {stack}: {costs[stack][-1]:.1f} ms a trial", flush=True)
    found["ms_a_trial"] = {stack: [round(cost, 2) for cost in each] for stack, each in costs.items()}
    found["median_ms"] = {stack: round(statistics.median(each), 2) for stack, each in costs.items()}
    found["long"] = {}
    for length in lengths:
        for stack, strategy in product(STACKS[:2], ("random", "evolution")):
            found["long"][f"{stack}, {strategy}, {length:,} trials"] = long = long_study(stack, length, strategy)
            print(f"{stack}, {strategy}, {length:,} trials: {long}", flush=True)
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


def table(found: dict[str, Any]) -> str:
    lines = ["", "| an empty trial, two at a time | ms (median of the rounds) | rounds |", "|---|---|---|"]
    for stack, median in found["median_ms"].items():
        lines.append(f"| {stack} | {median:,.1f} | {', '.join(f'{cost:,.1f}' for cost in found['ms_a_trial'][stack])} |")
    if found["long"]:
        lines += [
            "",
            "| one long study | ms a trial | first tenth | last tenth | slower by | driver's memory, MB |",
            "|---|" * 1,
        ]
        lines[-1] = "|---|---|---|---|---|---|"
    for name, one in found["long"].items():
        memory = f"{one['memory_mb'][0]} to {one['memory_mb'][-1]}" if one["memory_mb"] else ""
        tenths = f"{one['first_tenth_ms']} | {one['last_tenth_ms']} | {one['slower_percent']} %"
        lines.append(f"| {name} | {one['ms_a_trial']} | {tenths} | {memory} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--obvious-trials", type=int, default=60)
    parser.add_argument("--long", type=int, nargs="*", default=[2000, 10_000])
    parser.add_argument("--out", type=Path, default=HERE / "results" / "machinery.json")
    parser.add_argument("--stack", choices=STACKS, help="run this one alone, here, and print its marks")
    parser.add_argument("--strategy", choices=("random", "evolution"), default="evolution", help="of ours, with --stack")
    parser.add_argument("--folder", type=Path, help="where, with --stack")
    parser.add_argument("--profile", action="store_true", help="with --stack: print what the driver's time goes to")
    given = parser.parse_args()
    if given.stack is None:
        compare(given.rounds, given.trials, given.obvious_trials, given.long, given.out)
        return
    with tempfile.TemporaryDirectory(prefix="hb-") as made:
        folder = given.folder or Path(made)
        if given.stack == STACKS[2]:
            found = obvious(given.trials, folder)
        else:
            backend = "ray" if given.stack == STACKS[0] else "local"
            found = ours(backend, given.strategy, given.trials, folder, given.profile)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
