"""Trials that leave their weights in an S3 store: drivers are killed, the store goes away, and all weights are in the end
those of a study that nobody disturbs, bit for bit."""

import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from lab import Driver, Lab, real
from test_weights import weights

from harness.depot import Depot, depot
from harness.storage.reader import read_studies
from harness.take import take
from tests import s3

MakeLab = Callable[[str, str], Lab]
STUDY = real(trials=3, epochs=4, limit=60)
SHORT = real(trials=2, limit=60)


@dataclass
class Stored:
    """A server, and the place in it that is used."""

    server: s3.Server
    place: Depot

    def run(self, lab: Lab, **environment: object) -> Driver:
        """A driver that runs its trials itself."""
        known = self.server.environment | environment
        return lab.local("--runs", str(self.place), "--keep", "all", **known)

    def run_on_ray(self, lab: Lab, verb: str = "run") -> Driver:
        place = ("--runs", str(self.place)) if verb == "run" else ()  # the database knows it
        return lab.on_ray(*place, "--keep", "all", verb=verb)

    def has_checkpoint(self) -> bool:
        """Whether a trial is under way."""
        return any(name.startswith("last-") for names in (self.place / "real").inside().values() for name in names)

    def assert_whole(self, lab: Lab, study: str, planned: int, caused: int) -> None:
        """All weights are there, the same as ever, and nothing else, here or there."""
        lab.assert_whole(planned, caused=caused)
        assert lab.weights() == weights(study)
        assert (self.place / "real").inside() == {str(number): ["final.pt"] for number in range(planned)}
        assert not list(lab.folder.rglob("*.pt")) and not (lab.folder / "runs").exists()


@pytest.fixture
def stored(store: s3.Server) -> Iterator[Stored]:
    yield Stored(store, depot(f"{store.bucket()}/lab"))
    store.back()


@pytest.mark.parametrize("plan", ["save:after:2", pytest.param("settle:before:1", marks=pytest.mark.faults_long)])
def test_killed_at_some_steps_and_taken_home(make_lab: MakeLab, stored: Stored, plan: str) -> None:
    lab = make_lab(SHORT, "kill -9 at some steps, weights in a store (local)")
    driver = stored.run(lab, SABOTAGE=plan)
    assert driver.wait() == -signal.SIGKILL, driver.printed
    last = stored.run(lab)
    assert last.wait() == 0, last.printed
    stored.assert_whole(lab, SHORT, 2, caused=1)
    assert read_studies(lab.storage, "real")[0].attributes["places"]["runs"] == str(stored.place)
    assert "weights.safetensors" in take("real", 0, lab.storage, lab.folder / "taken").files


@pytest.mark.faults_long
def test_killed_on_ray_and_resumed(make_lab: MakeLab, stored: Stored) -> None:
    lab = make_lab(STUDY, "kill -9 on Ray, weights in a store")
    driver = stored.run_on_ray(lab)
    lab.wait_for(driver, stored.has_checkpoint)
    caused = driver.shoot()
    last = stored.run_on_ray(lab, "resume")
    assert last.wait() == 0, last.printed
    stored.assert_whole(lab, STUDY, 3, caused=caused)


@pytest.mark.faults_long
@pytest.mark.parametrize("how", [s3.REFUSING, s3.FAILING, s3.HANGING])
def test_a_store_away_for_seconds_is_waited_for(make_lab: MakeLab, stored: Stored, how: str) -> None:
    lab = make_lab(STUDY, "a store away for seconds (Ray)")
    driver = stored.run_on_ray(lab)
    lab.wait_for(driver, stored.has_checkpoint)
    stored.server.away(how)
    threading.Timer(20, stored.server.back).start()
    assert driver.wait() == 0, driver.printed
    assert "stopped:" not in driver.printed
    stored.assert_whole(lab, STUDY, 3, caused=1)


@pytest.mark.faults_long
def test_a_store_that_stays_away_ends_the_run_and_loses_nothing(make_lab: MakeLab, stored: Stored) -> None:
    lab = make_lab(STUDY, "a store that stays away (Ray)")
    driver = stored.run_on_ray(lab)
    lab.wait_for(driver, stored.has_checkpoint)
    stored.server.away()
    assert driver.wait() == 75, driver.printed
    assert "does not answer" in driver.printed and "`harness resume real` goes on" in driver.printed, driver.printed
    assert "Traceback" not in driver.printed and not lab.states["FAIL"], driver.printed
    stored.server.back()
    last = stored.run_on_ray(lab, "resume")
    assert last.wait() == 0, last.printed
    stored.assert_whole(lab, STUDY, 3, caused=1)
