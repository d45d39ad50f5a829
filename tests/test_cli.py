"""The commands as a user types them: one readable line for what is wrong, exit codes, JSON, nothing left behind."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli import main, options
from harness.execution.ledger import Rules
from harness.loading import load_study
from harness.run import Options, run_study
from harness.study import Study

ROOT = Path(__file__).parents[1]
Harness = Callable[..., tuple[int, str, str]]


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Harness:
    """Runs a command in an empty folder; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["harness", *words])
        try:
            main.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return command


def write_study(path: Path, **changes: str) -> None:
    fields = {
        "name": '"tiny"',
        "question": '"Which?"',
        "space": "vary(ResNet, depth=8, stages=(None, None, choose(None, SqueezeExcite(ratio=4))))",
        "training": 'Training(epochs=1, limit=10, precision="fp32")',
        "strategy": "Exhaustive()",
    }
    body = ", ".join(f"{name}={value}" for name, value in (fields | changes).items())
    path.write_text(
        f"from harness.config import *\nfrom harness.space import *\nfrom harness.study import *\nSTUDY = Study({body})\n"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strategy": "Evolutoin(trials=3)"}, r"study\.py:4: NameError: name 'Evolutoin' is not defined"),
        ({"strategi": "Exhaustive()"}, r"study\.py:4: Study\.strategi: Study has no such field .*did you mean 'strategy'\?"),
        (
            {"training": 'Training(dataset="cifar11")'},
            r"Training\.dataset = 'cifar11': .*'digits', 'cifar10'.*did you mean 'cifar10'",
        ),
        ({"training": 'Training(dataset="folder")'}, r"there is no folder data/train; give the folder that holds"),
        ({"training": 'Training(dataset="cifar10")'}, r"cifar10 is not under data: add --download"),
        ({"space": 'vary(ResNet, stages=(None, None, Custom("mylab.gate:Gate")))'}, r"mylab\.gate:Gate: .*mylab"),
        ({"space": "vary(ResNet, depth=choose(8, 9))"}, r"depth = 9 is never valid: ResNet\.depth = 9: use one of 8, 14"),
        ({"name": '"a b"'}, r"Study\.name = 'a b': use letters"),
        ({"strategy": "3 +"}, r"study\.py:4: SyntaxError"),
    ],
)
def test_a_wrong_study_is_one_line(harness: Harness, tmp_path: Path, changes: dict[str, str], said: str) -> None:
    write_study(tmp_path / "study.py", **changes)
    for verb in ("run", "plan"):
        code, out, err = harness(verb, "study.py")
        assert (code, out) == (2, "")
        assert re.search(said, err), err
        assert err.count("\n") == 1 and err.startswith("harness: ") and "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["study.py"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "nowhere.py"), "nowhere.py: there is no such study file"),
        (("run", "nowhere"), "there is no database at harness.db"),
        (("resume", "nowhere"), "there is no database at harness.db"),
        (("status",), "there is no database at harness.db"),
        (("report", "x", "--storage", "sqlite:///README.md"), "README.md: DatabaseError: file is not a database"),
        (("status", "--storage", "harness.db"), "not a database URL; write sqlite:///harness.db"),
        (("run", "empty.py"), "empty.py: it exports no STUDY"),
        (("new", "Bad Name"), "use lower-case letters"),
    ],
)
def test_a_wrong_command_is_one_line(harness: Harness, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "README.md").write_text("not a database, but long enough to be looked at as one\n" * 20)
    (tmp_path / "empty.py").write_text("")
    code, out, err = harness(*words)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "empty.py"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("training.epoch=5", "training has no 'epoch' .*did you mean 'epochs'"),
        ("training.epochs=five", "Training.epochs = 'five': input should be a valid integer"),
        ("epochs", "write path=value"),
        ("space.stages.9=null", "has no '9'"),
    ],
)
def test_a_wrong_setting_is_one_line(harness: Harness, tmp_path: Path, setting: str, said: str) -> None:
    write_study(tmp_path / "study.py")
    code, out, err = harness("run", "study.py", "--set", setting)
    assert (code, out) == (2, "") and re.search(said, err) and err.count("\n") == 1


def test_run_status_report_resume(harness: Harness, tmp_path: Path) -> None:
    write_study(tmp_path / "study.py")
    code, out, _ = harness("run", "study.py", "--backend", "local", "--trials", "1")
    assert code == 0 and "[1/1] trial 0: accuracy" in out and "tiny: 1 trial finished" in out
    code, out, _ = harness("resume", "tiny", "--backend", "local")
    assert code == 0 and "[2/2] trial 1" in out and "2 of 2 in all" in out
    code, out, _ = harness("run", "study.py", "--backend", "local")
    assert code == 0 and out.startswith("tiny: nothing to train, all 2 trials are finished")
    code, out, _ = harness("status")
    assert code == 0 and "tiny" in out and "Which?" in out
    code, out, _ = harness("status", "tiny")
    assert code == 0 and "2 complete" in out and "accuracy" in out
    code, out, _ = harness("report", "tiny")
    page = Path(out.strip())
    assert code == 0 and page == tmp_path / "reports" / "tiny" / "index.html" and page.stat().st_size > 1e6
    assert sorted(path.name for path in page.parent.iterdir()) == ["front.json", "index.html", "trials.csv"]


def test_json_alone_on_stdout(harness: Harness, tmp_path: Path) -> None:
    write_study(tmp_path / "study.py")
    code, out, _ = harness("run", "study.py", "--backend", "local", "--json")
    found = json.loads(out)
    assert code == 0 and (found["complete"], found["planned"], found["left"]) == (2, 2, 0)
    assert json.loads(harness("status", "--json")[1])[0]["complete"] == 2
    shown = json.loads(harness("status", "tiny", "--json")[1])
    assert shown["front"] and set(shown["front"][0]["values"]) == {"accuracy", "params", "macs"}
    assert Path(json.loads(harness("report", "tiny", "--json")[1])["page"]).exists()
    planned = json.loads(harness("plan", "study.py", "--json")[1])
    assert (planned["size"], planned["trials"], planned["done"]) == (2, 2, 2)


def test_a_setting_opens_a_study_of_its_own(harness: Harness, tmp_path: Path) -> None:
    write_study(tmp_path / "study.py", strategy="Random(trials=2)")
    run = ("run", "study.py", "--backend", "local")
    assert harness(*run, "--set", "training.lr=0.2", "--set", "strategy.trials=1")[0] == 0
    assert harness(*run, "--set", "strategy.trials=1")[0] == 0
    names = {row["study"]: row["complete"] for row in json.loads(harness("status", "--json")[1])}
    assert names == {"tiny~training.lr=0.2": 1, "tiny": 1}
    assert harness("resume", "tiny~training.lr=0.2", "--backend", "local")[0] == 0


def test_a_failed_trial_shows_in_exit_code_and_status(harness: Harness, tmp_path: Path) -> None:
    write_study(tmp_path / "study.py", training="Training(epochs=1, limit=10, lr=1e30, warmup=0.0, precision='fp32')")
    code, out, _ = harness("run", "study.py", "--backend", "local")
    assert code == 1 and "harness status tiny --failed" in out
    code, out, _ = harness("status", "tiny", "--failed")
    assert code == 0 and "trial 0 failed: the loss is" in out and "Traceback" in out


def test_plan_shows_space_costs_and_trials(harness: Harness, tmp_path: Path) -> None:
    write_study(tmp_path / "study.py", constraints="(at_most('params', 76_000),)")
    code, out, _ = harness("plan", "study.py")
    assert code == 0 and "stage 3: none | SqueezeExcite(ratio=4)" in out
    assert "space: 1 choice, 2 configs" in out and "1 of all break params at most 76000" in out
    assert "trials: 1 of 1 epochs; 0 in the database" in out
    assert [path.name for path in tmp_path.iterdir()] == ["study.py"]


def test_new_writes_a_starter_that_plans_and_runs(harness: Harness, tmp_path: Path) -> None:
    code, out, _ = harness("new", "my-kernels")
    assert code == 0 and "studies/my_kernels.py" in out
    written = [
        tmp_path / "my_kernels_gate.py",
        *(tmp_path / folder / "my_kernels.py" for folder in ("search_spaces", "studies")),
    ]
    assert all(path.exists() for path in written)
    assert harness("plan", "studies/my_kernels.py")[0] == 0
    small = ("--set", "training.epochs=1", "--set", "training.limit=10", "--trials", "2")
    assert harness("run", "studies/my_kernels.py", "--backend", "local", *small)[0] == 0
    code, _, err = harness("new", "my-kernels")
    assert code == 2 and "is there already" in err


def test_new_writes_a_starter_with_a_loop_of_ones_own(harness: Harness, tmp_path: Path) -> None:
    assert harness("new", "mine", "--loop")[0] == 0
    small = ("--set", "training.epochs=1", "--set", "training.limit=10", "--trials", "1", "--json")
    code, out, err = harness("run", "studies/mine.py", "--backend", "local", *small)
    assert code == 0, err
    assert 0 < json.loads(out)["best"]["error"] < 1


def test_a_changed_study_shows_what_changed(harness: Harness, tmp_path: Path) -> None:
    write_study(tmp_path / "study.py")
    assert harness("run", "study.py", "--backend", "local", "--trials", "1")[0] == 0
    write_study(tmp_path / "study.py", training='Training(epochs=2, limit=10, precision="fp32")')
    code, out, _ = harness("plan", "study.py")
    assert code == 0 and "note: changed: training.epochs: 1 -> 2: tiny@2 is opened beside tiny" in out
    code, out, _ = harness("run", "study.py", "--backend", "local", "--trials", "1")
    assert code == 0 and out.startswith("changed: training.epochs: 1 -> 2: tiny@2 is opened beside tiny")
    assert [row["study"] for row in json.loads(harness("status", "--json")[1])] == ["tiny@2"]
    code, out, _ = harness("status", "tiny")
    assert code == 0 and "other revision: tiny@1, 1 complete" in " ".join(out.split())


@pytest.mark.parametrize("verb", ["run", "resume", "status", "report", "plan", "new"])
def test_help_teaches(harness: Harness, verb: str) -> None:
    code, out, _ = harness(verb, "--help")
    assert code == 0 and f"harness {verb}" in out and len(out) > 300


@pytest.mark.parametrize("name", ["quickstart", "attention_kind_cifar10", "expatt_kernels_cifar10"])
def test_the_studies_that_ship_are_sound(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    from harness.loading import load_study

    study, _ = load_study(f"studies/{name}.py")
    assert isinstance(study, Study) and study.question.endswith("?")
    space = study.open_space()
    assert len(space.parameters) >= 3
    assert study.from_json(study.to_json()).to_json() == study.to_json()


def test_studies_can_be_run_from_python(make_study: Callable[..., Study], storage: str) -> None:
    assert run_study(make_study(), Options(storage=storage, backend="local", rules=Rules(trials=1))).complete == 1


def test_a_time_limit_ends_cleanly_and_says_what_is_left(harness: Harness, tmp_path: Path) -> None:
    write_study(tmp_path / "study.py", training="Training(epochs=200, limit=10, precision='fp32')")
    code, out, _ = harness("run", "study.py", "--backend", "local", "--for", "0.5s")
    assert code == 143 and "2 trials left: `harness resume tiny` goes on" in out, out
    assert (
        harness("run", "study.py", "--for", "soon")[2]
        == "harness: --for soon: write a number and s, m, h or d, as in 20m or 8h\n"
    )


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("20m", 1200), ("1.5h", 5400), ("2d", 172800)])
def test_stretches_of_time(text: str, seconds: float) -> None:
    assert options.seconds(text) == seconds


def test_a_study_that_nobody_runs_cannot_be_stopped(harness: Harness, tmp_path: Path) -> None:
    write_study(tmp_path / "study.py")
    assert harness("run", "study.py", "--backend", "local", "--trials", "1")[0] == 0
    assert harness("stop", "tiny")[:2] == (0, "tiny: nobody runs it\n")


def test_failed_trials_run_again_on_request(harness: Harness, tmp_path: Path) -> None:
    write_study(tmp_path / "study.py", training="Training(epochs=1, limit=10, lr=1e30, warmup=0.0, precision='fp32')")
    assert harness("run", "study.py", "--backend", "local")[0] == 1
    code, out, _ = harness("resume", "tiny", "--backend", "local", "--retry-failed")
    assert code == 1 and "4 of 4 in all, 4 failed" in out


def test_early_stopping_from_the_plan_to_promotion(harness: Harness, tmp_path: Path) -> None:
    fields = {
        "training": 'vary(Training, epochs=4, limit=10, precision="fp32", lr=choose(0.05, 0.1, 0.2, 0.4))',
        "strategy": "Random(trials=8)",
        "objectives": '(minimize("loss"), minimize("params"))',
    }
    write_study(tmp_path / "study.py", stopping="Asha(quorum=2, reduction_factor=2)", **fields)
    code, out, _ = harness("plan", "study.py")
    assert code == 0 and "early stopping: ASHA by loss after epochs 1 and 2 of 4: one in 2 goes on, once 2" in out
    assert "and 0.6 MB each for the best 10 stopped early" in out
    code, out, _ = harness("run", "study.py", "--backend", "local")
    ended = re.findall(r"trial (\d+): stopped early at epoch (\d): \d+\w\w of \d+ at this rung, room for \d \(loss", out)
    saved = sum(4 - int(epoch) for _, epoch in ended)
    assert code == 0 and len(ended) >= 2 and f"{len(ended)} trials stopped early, {saved} epochs saved" in out, out

    code, out, _ = harness("status", "tiny")
    words = " ".join(out.split())
    assert f"{8 - len(ended)} complete and {len(ended)} stopped early; 8 planned" in words
    assert f"one in 2 goes on, once 2 are there; {saved} epochs saved" in words
    shown = json.loads(harness("status", "tiny", "--json")[1])
    assert (shown["stopped"], shown["saved_epochs"], len(shown["stops"])) == (len(ended), saved, len(ended))
    assert {row["number"] for row in shown["front"]}.isdisjoint(row["number"] for row in shown["stops"])
    page = Path(harness("report", "tiny")[1].strip()).read_text()
    assert "ASHA by loss after epochs 1 and 2 of 4" in page and f"({saved} epochs saved by early stopping)" in page

    assert harness("run", "study.py", "--backend", "local")[1].startswith("tiny: nothing to train, all 8 trials")
    code, out, _ = harness("run", "tiny", "--backend", "local", "--promote", "2")
    assert code == 0 and "[10/10] trial 9: loss" in out and "10 of 10 in all" in out
    assert harness("resume", "tiny", "--backend", "local", "--promote", "2")[1].startswith("tiny: nothing to train")
    write_study(tmp_path / "study.py", stopping="Asha(quorum=3, reduction_factor=2)", **fields)
    code, out, _ = harness("plan", "study.py")
    assert code == 0 and "note: changed: stopping.quorum: 2 -> 3" in out
    code, out, _ = harness("plan", "study.py", "--set", "stopping.quorum=4", "--set", "training.epochs=1")
    assert code == 0 and "early stopping: no trial is stopped early" in out


def test_plan_shows_the_disk_a_study_takes(harness: Harness, tmp_path: Path) -> None:
    write_study(tmp_path / "study.py")
    _, out, _ = harness("plan", "study.py")
    assert "disk: 0.6 MB a running trial, then 0.3 MB each" in out


def test_the_disk_a_trial_takes_is_what_its_files_have(harness: Harness, tmp_path: Path) -> None:
    """AdamW's two moments, the moving average and the best epoch are in a checkpoint, and in the plan."""
    recipe = 'Training(epochs=2, limit=10, precision="fp32", optimizer="adamw", lr=1e-3, ema=0.9, select="best")'
    write_study(tmp_path / "study.py", training=recipe, space="ResNet(depth=8)")
    planned = json.loads(harness("plan", "study.py", "--json")[1])
    seen = {}

    def stop() -> bool:
        seen.update({path.name[:4]: path.stat().st_size for path in (tmp_path / "runs" / "tiny" / "0").glob("last-*.pt")})
        return False

    study, _ = load_study(str(tmp_path / "study.py"))
    run_study(study, Options(storage=f"sqlite:///{tmp_path}/harness.db", backend="local"), stop=stop)
    final = (tmp_path / "runs" / "tiny" / "0" / "final.pt").stat().st_size
    assert planned["checkpoint_bytes"] == 5 * planned["weights_bytes"] == 5 * 4 * 75_002
    assert 0 <= seen["last"] / planned["checkpoint_bytes"] - 1 < 0.1
    assert 0 <= final / planned["weights_bytes"] - 1 < 0.1


def test_status_and_run_tell_what_was_measured(harness: Harness, tmp_path: Path) -> None:
    text = 'objectives=(maximize("accuracy"), minimize("latency")), constraints=(at_most("inference_memory", 1e6),)'
    write_study(tmp_path / "study.py", space="vary(ResNet, depth=choose(8, 56))")
    path = tmp_path / "study.py"
    words = path.read_text().replace("strategy=", f"{text}, strategy=")
    path.write_text("from harness.study import at_most, maximize, minimize\n" + words)
    assert "inference_memory at most 1e+06: measured before a network is trained" in harness("plan", "study.py")[1]
    code, out, _ = harness("run", "study.py", "--backend", "local")
    assert code == 0 and "[1/2] trial 0: accuracy " in out and ", latency " in out.splitlines()[0]
    assert "[2/2] trial 1: not trained: inference_memory at most 1e+06 is wanted, measured was 3." in out
    assert "1 trial not trained: over a measured constraint" in out
    out = harness("status", "tiny")[1]
    assert "not trained: 1 trial, for the network breaks a constraint" in out
    assert re.search(r"measured: batch 1 on .*\(cpu\), 2 trials, [\d.]+ .s to [\d.]+ .s", out)
    shown = json.loads(harness("status", "tiny", "--json")[1])
    assert shown["measured"]["0"][0]["source"] == "trial" and shown["stops"][0]["number"] == 1
    assert "latency" in shown["front"][0]["values"]


def test_plan_of_a_design_shows_arms_power_and_what_fits(harness: Harness, tmp_path: Path) -> None:
    write_study(tmp_path / "study.py", strategy="AddOneIn(margin=0.005)", seeds="(0, 1, 2)")
    code, out, _ = harness("plan", "study.py", "--deadline", "20m", "--no-timing")
    assert code == 0 and "design: 2 arms x 3 seeds = 6 cells, baseline base; margin: 0.5 points; plan " in out
    assert "smallest effect at 80 % power with 3 seeds, 1 comparison at level 0.05" in out
    assert "deadline 20 minutes: cannot be planned for" in out and "trials: 6 of 1 epochs" in out
    assert json.loads(harness("plan", "study.py", "--json")[1])["design"]["cells"] == 6
    assert harness("plan", "study.py", "--deadline", "soon")[2].startswith("harness: --deadline soon: write a number")
    write_study(tmp_path / "study.py")
    assert "--deadline 1h: tiny is no design" in harness("plan", "study.py", "--deadline", "1h")[2]
