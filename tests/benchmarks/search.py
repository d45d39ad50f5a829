"""How many epochs each strategy needs, replayed on a real table: `tests/assets/search-table-cifar10.db.xz`.

The table is `studies/search_table_cifar10.py`: small ResNets on CIFAR-10 pictures, each config with two seeds. A search sees
one seed and is scored on the other. Beside ours: Optuna's NSGA-II and TPE as a user calls them, with parameters suggested
where they are active, and Ray Tune's own ASHA over random draws, driven by its public `on_trial_result`.

    python tests/benchmarks/search.py [--repeats 20] [--most 700] [--only NAME ...] [--pack URL]
"""

import argparse
import json
import lzma
import math
import random
import shutil
import sqlite3
import statistics
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from harness.config import Config
from harness.record import Record
from harness.simulate import SHARES, Player, Replay, Score, Table, allowed, cell_name, matched, replay, simulate
from harness.space import Space
from harness.study import Asha, Bayesian, Evolution, Random, Study, SuccessiveHalving, Tpe

HERE = Path(__file__).parent
ASSET = HERE.parent / "assets" / "search-table-cifar10.db.xz"
RESULTS = HERE / "results" / "search.json"
NAME = "search-table-cifar10"
WORKERS = 4
BUDGETS = (50, 100, 200, 400)


def unpacked(folder: Path) -> str:
    """The URL of the table's database in a folder."""
    with lzma.open(ASSET) as packed, (folder / "table.db").open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    return f"sqlite:///{folder}/table.db"


def pack(file: Path) -> None:
    """Makes the asset of a database: its complete trials, without what names a machine."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "table.db"
        with sqlite3.connect(file) as source, sqlite3.connect(copy) as target:
            source.backup(target)
        with sqlite3.connect(copy) as target:
            target.execute("PRAGMA journal_mode=DELETE")
            target.execute("DELETE FROM study_user_attributes WHERE key IN ('places', 'provenance')")
            rows = "trial_id IN (SELECT trial_id FROM trials WHERE state != 'COMPLETE')"
            for table in ("trial_params", "trial_values", "trial_user_attributes", "trial_intermediate_values", "trials"):
                target.execute(f"DELETE FROM {table} WHERE {rows}")
            target.execute("DELETE FROM trial_user_attributes WHERE key = 'provenance'")
            target.execute("DELETE FROM trial_intermediate_values")  # the curves are in an attribute too
            target.commit()
            target.execute("VACUUM")
        ASSET.parent.mkdir(exist_ok=True)
        ASSET.write_bytes(lzma.compress(copy.read_bytes(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{ASSET}: {ASSET.stat().st_size / 1e3:.0f} kB")


# -- those beside ours --------------------------------------------------------------------------------------------------


class Stock:
    """Optuna as its manual has it: ask, suggest what is active, tell; what comes twice is trained twice, and what the table
    lacks costs nothing."""

    def __init__(self, study: Study, table: Table, sampler: optuna.samplers.BaseSampler) -> None:
        self._table = table
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study, self._space = study, study.open_space(check=False)
        directions = [objective.direction for objective in study.objectives]
        self._optuna = optuna.create_study(directions=directions, sampler=sampler)
        self._trials: dict[int, optuna.trial.Trial] = {}

    def next(self) -> tuple[int, Config] | None:
        while True:
            trial = self._optuna.ask()
            config = self._space.config(suggested(trial))
            if cell_name(config) in self._table.cells:
                self._trials[trial.number] = trial
                return trial.number, config
            self._optuna.tell(trial, state=TrialState.FAIL)

    def goes_on(self, number: int, record: Record, epochs: int) -> bool:
        if epochs < len(record.curve):
            return True
        self._optuna.tell(self._trials.pop(number), [record.value(o.metric) for o in self._study.objectives])
        return False


def suggested(trial: optuna.trial.Trial) -> dict[str, Any]:
    """The space of `search_spaces/small_resnets.py`, suggested."""

    def choose(name: str, *options: Any) -> Any:
        found[name] = trial.suggest_categorical(name, options)
        return found[name]

    found: dict[str, Any] = {}
    choose("depth", 8, 14)
    choose("width", 0.25, 0.5, 1.0)
    choose("stages.2.attention", "none", "se", "expatt")
    if choose("stages.3.attention", "none", "se", "expatt") == "expatt":
        choose("stages.3.expatt.kernel", "gaussian", "uniform")
        choose("stages.3.expatt.radius", 1.0, 3.0)
        choose("stages.3.expatt.heads", 1, 2)
    choose("training.lr", 0.02, 0.2)
    return found


class RayAsha:
    """Random draws, none twice, under Ray Tune's AsyncHyperBandScheduler on accuracy."""

    def __init__(self, study: Study, table: Table, seed: int) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler

        epochs = max(len(cell.record.curve) for cell in table.cells.values())
        self._scheduler = AsyncHyperBandScheduler(
            metric="accuracy", mode="max", max_t=epochs, grace_period=1, reduction_factor=3
        )
        self._configs = enumerate(drawn(study.open_space(check=False), table, seed))
        self._trials: dict[int, Any] = {}

    def next(self) -> tuple[int, Config] | None:
        given = next(self._configs, None)
        if given is not None:
            self._trials[given[0]] = types.SimpleNamespace(trial_id=str(given[0]))
            self._scheduler.on_trial_add(None, self._trials[given[0]])
        return given

    def goes_on(self, number: int, record: Record, epochs: int) -> bool:
        result = {"training_iteration": epochs, "accuracy": record.curve[epochs - 1].accuracy}
        if epochs == len(record.curve):
            self._scheduler.on_trial_complete(None, self._trials.pop(number), result)
            return False
        return bool(self._scheduler.on_trial_result(None, self._trials[number], result) == "CONTINUE")


def drawn(space: Space, table: Table, seed: int) -> Iterator[Config]:
    """The configs of the table in random order."""
    found: dict[str, Config] = {}
    for name in random.Random(seed).sample(sorted(table.cells), len(table.cells)):
        found[name] = table.cells[name].record.config
    yield from found.values()


def beside(
    make: Callable[[Study, Table, int], Player], study: Study, table: Table, repeats: int, most: float
) -> tuple[Replay, ...]:
    """The replays of a search that is not ours."""
    cells = allowed(matched(study, table), table)

    def one(repeat: int) -> Replay:
        seed, scored = table.seeds(repeat)
        player = make(matched(study, table, repeat), table, repeat)
        return replay(player, table, Score(study.objectives, cells, seed, scored), WORKERS, most)

    return tuple(one(repeat) for repeat in range(repeats))


# -- the comparison -----------------------------------------------------------------------------------------------------

Runner = Callable[[Study, Table, int, float], tuple[Replay, ...]]


def ours(strategy: Any, stopping: Any = None) -> Runner:
    def run(study: Study, table: Table, repeats: int, most: float) -> tuple[Replay, ...]:
        fields = {name: getattr(study, name) for name in Study.model_fields}
        made = Study(**fields | {"strategy": strategy, "stopping": stopping, "seeds": (0,)})
        return simulate(made, table, workers=WORKERS, repeats=repeats, most=most).replays

    return run


def others(make: Callable[[Study, Table, int], Player]) -> Runner:
    return lambda study, table, repeats, most: beside(make, study, table, repeats, most)


ENDLESS = 10_000
CONTENDERS: dict[str, Runner] = {
    "random": ours(Random(trials=ENDLESS)),
    "random, halving": ours(Random(trials=ENDLESS), SuccessiveHalving()),
    "random, our Asha": ours(Random(trials=ENDLESS), Asha()),
    "random, Ray's ASHA": others(RayAsha),
    "Optuna's NSGA-II": others(lambda study, table, seed: Stock(study, table, optuna.samplers.NSGAIISampler(seed=seed))),
    "Optuna's TPE": others(lambda study, table, seed: Stock(study, table, optuna.samplers.TPESampler(seed=seed))),
    "Evolution(children=1)": ours(Evolution(trials=ENDLESS, children=1)),
    "Evolution(children=1), halving": ours(Evolution(trials=ENDLESS, children=1), SuccessiveHalving()),
    "Tpe": ours(Tpe(trials=ENDLESS)),
    "Tpe, halving": ours(Tpe(trials=ENDLESS), SuccessiveHalving()),
    "Evolution": ours(Evolution(trials=ENDLESS)),
    "Evolution, halving": ours(Evolution(trials=ENDLESS), SuccessiveHalving()),
    "Bayesian": ours(Bayesian(trials=ENDLESS)),
}
SLOW = ("Bayesian",)
"""Left out unless asked for: a second a proposal."""


def compared(names: list[str], repeats: int, most: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = Table.read(unpacked(Path(folder)), NAME)
        for name in names:
            began = time.process_time()
            replays = CONTENDERS[name](table.study, table, repeats, most)
            found = facts(replays) | {"seconds": round(time.process_time() - began, 1)}
            known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            known["table"] = {
                "configs": len(table.cells),
                "seeds": list(table.study.seeds),
                "workers": WORKERS,
                "most": most if math.isfinite(most) else None,
            }
            known.setdefault("strategies", {})[name] = found
            RESULTS.write_text(json.dumps(known, indent=1) + "\n")
            print(row(name, found), flush=True)


def facts(replays: tuple[Replay, ...]) -> dict[str, Any]:
    """What is told of a contender."""

    def reached(share: float) -> dict[str, Any]:
        epochs = [one.reached(share) for one in replays]
        median = statistics.median(math.inf if found is None else found for found in epochs)
        return {
            "epochs": median if math.isfinite(median) else None,
            "times": sum(found is not None for found in epochs),
            "each": epochs,
        }

    return {
        "repetitions": len(replays),
        "reached": {f"{share:g}": reached(share) for share in SHARES},
        "share": {str(budget): statistics.mean(one.share(budget) for one in replays) for budget in BUDGETS},
        "final": statistics.mean(one.share(math.inf) for one in replays),
        "epochs": statistics.median(one.epochs for one in replays),
        "complete": statistics.median(one.complete for one in replays),
        "stopped": statistics.median(one.stopped for one in replays),
    }


def row(name: str, found: dict[str, Any]) -> str:
    reached = [f"{one['epochs'] or '-':>6} ({one['times']:2})" for one in found["reached"].values()]
    shares = [f"{100 * share:6.1f}" for share in found["share"].values()]
    return f"{name:32} {' '.join(reached)} {' '.join(shares)} {100 * found['final']:6.1f} of {found['epochs']:6.0f} epochs"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--repeats", type=int, default=20)
    arguments.add_argument("--most", type=float, default=700, help="epochs at which a search is ended")
    arguments.add_argument("--only", nargs="+", choices=list(CONTENDERS))
    arguments.add_argument("--pack", type=Path, help="make the asset of this database")
    given = arguments.parse_args()
    if given.pack:
        pack(given.pack)
        return
    print(f"{'':32} epochs to 90, 95, 99 % (of {given.repeats})   % after {BUDGETS} epochs, in the end")
    compared(given.only or [name for name in CONTENDERS if name not in SLOW], given.repeats, given.most)


if __name__ == "__main__":
    main()
