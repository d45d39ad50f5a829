"""A driver killed in the middle of a study, on Ray, with fake trials and with real ones and a module of the user's."""

from collections.abc import Callable

import optuna
import pytest
from lab import THREE, Lab, searched

STUDY = """
from harness.config import Custom, ExpAtt, ResNet, Training
from harness.space import choose, span, vary
from harness.study import Evolution, Study

attention = choose(
    None,
    vary(ExpAtt, radius=span(0.5, 4.0, log=True)),
    vary(Custom, "lab.gate:Gate", reduction=choose(2, 4)),
)
STUDY = Study(
    name="killed",
    question="Is every trial there?",
    space=vary(ResNet, depth=8, stages=(None, choose(None, Custom("lab.gate:Gate")), attention)),
    training=Training(epochs=3, limit=40, batch_size=32, precision="fp32"),
    strategy=Evolution(trials=8, population=4),
)
"""
GATE = """
from torch import nn

class Gate(nn.Module):
    def __init__(self, channels, reduction=4):
        super().__init__()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels // reduction, 1), nn.ReLU(),
            nn.Conv2d(channels // reduction, channels, 1), nn.Sigmoid(),
        )

    def forward(self, x):
        return x * self.weigh(x)
"""


def test_killed_on_ray_where_some_are_stopped_early(make_lab: Callable[[str, str], Lab]) -> None:
    study = searched("Evolution(trials=24, population=4)", THREE, 5, "SuccessiveHalving(quorum=4)")
    lab = make_lab(study, "kill -9 on Ray, early stops")
    driver = lab.on_ray(FAKE_PAUSE=0.05)
    lab.wait_for(driver, lambda: lab.states["PRUNED"] > 1)
    assert driver.shoot()
    (lab.folder / "studies" / "study.py").unlink()  # the database is enough
    driver = lab.local(verb="resume")
    assert driver.wait() == 0 and "24 of 24 in all" in driver.printed, driver.printed
    lab.assert_whole(24, caused=1)


@pytest.mark.faults_long
def test_killed_and_gone_on_by_file_and_by_name(make_lab: Callable[[str, str], Lab]) -> None:
    lab = make_lab(STUDY, "kill -9 on Ray (real trials, a user's module)")
    module = lab.folder / "studies" / "lab"
    module.mkdir()
    (module / "__init__.py").touch()
    (module / "gate.py").write_text(GATE)

    for complete in (1, 3):
        driver = lab.on_ray()
        lab.wait_for_rows(driver, complete)
        assert driver.shoot()
        assert lab.states["RUNNING"] > 0 and lab.states.total() < 8

    (lab.folder / "studies" / "study.py").unlink()  # the database and the module are enough
    driver = lab.on_ray(verb="resume")
    assert driver.wait() == 0 and "8 of 8 in all" in driver.printed, driver.printed
    lab.assert_whole(8, caused=2)
    study = optuna.load_study(study_name="killed", storage=f"sqlite:///{lab.database}")
    assert all(set(trial.intermediate_values) == {1, 2, 3} for trial in study.trials)
    assert "gate" in {trial.params["stages.3.attention"] for trial in study.trials}

    out = lab.local(verb="resume").end()
    assert out.splitlines()[0] == "killed: nothing to train, all 8 trials are finished"
    (module / "gate.py").unlink()
    driver = lab.local(verb="resume")
    assert driver.wait() == 2 and driver.printed.count("\n") == 1, driver.printed
    assert "lab.gate:Gate" in driver.printed and "--code" in driver.printed
