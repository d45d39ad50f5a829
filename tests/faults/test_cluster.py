"""A study on a Ray cluster whose machines come late, go, fall silent, or lose their head: it ends whole, by itself."""

import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
from cluster import PLAIN, Cluster, isolates
from lab import Driver, Lab, real, searched
from PIL import Image

MakeLab = Callable[[str, str], Lab]
TOKEN = "5eed" * 16
HARNESS = str(Path(sys.executable).with_name("harness"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one, for Ray's sockets lie below it."""
    made = Path(tempfile.mkdtemp(prefix="hc-"))
    yield made
    shutil.rmtree(made)


def drive(lab: Lab, cluster: Cluster, *options: str, **environment: str) -> Driver:
    """A driver on the head's machine, which does without tokens unless it is told where its own is."""
    lab.begin = (*cluster.head.inside, HARNESS)
    return lab.start("--address", cluster.address, *options, fresh=True, **(environment or PLAIN))


def move_code(lab: Lab) -> Path:
    """Puts the user's code, and what it imports, where only the driver's machine has it; returns the folder."""
    studies = lab.folder / "studies"
    code = (lab.folder / "fakes.py").read_text().replace("import hashlib", "import chance.names, hashlib")
    (studies / "fakes.py").write_text(code)
    (studies / "chance").mkdir()
    (studies / "chance" / "names.py").touch()
    (lab.folder / "fakes.py").unlink()
    return studies


def test_workers_come_late_and_are_given_token_and_code(make_lab: MakeLab, folder: Path) -> None:
    lab = make_lab(
        searched("Random(trials=8)"), "cluster: no worker at first, then one without the user's code, then another"
    )
    token = lab.folder / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text(TOKEN)
    hidden, runs = move_code(lab), lab.folder / "runs"
    (runs / "fake").mkdir(parents=True)
    (runs / "fake" / ".seen-by-nobody").touch()  # of a driver that was shot
    there = {"FAKE_LOG": str(lab.epochs_log), "FAKE_PAUSE": "0.5"}
    with Cluster(folder, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN, **there) as cluster:
        driver = drive(lab, cluster, HOME=str(lab.folder))
        lab.wait_for(driver, lambda: "the cluster has no machine for trials yet" in driver.printed)
        lab.wait_for(driver, lambda: "{'CPU': 1.0}: 1+ pending tasks" in cluster.status)
        cluster.begin(1, (hidden,))
        lab.wait_for(driver, lambda: lab.states["RUNNING"] > 0)
        cluster.begin(1, (hidden, runs))
        assert driver.wait() == 0, driver.printed
    assert driver.printed.count(f" does not see {runs}: ") == isolates(), driver.printed
    assert not isolates() or f"(10.77.0.3) does not see {runs}: " in driver.printed, driver.printed
    lab.assert_whole(8, caused=1)


@pytest.mark.faults_long
def test_a_cluster_that_does_not_take_us(make_lab: MakeLab, folder: Path) -> None:
    lab = make_lab(searched("Random(trials=6)"), "no cluster for us")
    token = lab.folder / ".ray" / "auth_token"
    with Cluster(folder, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN) as cluster:
        for has, said in {"": "there is no token here", "bad" + TOKEN[3:]: "the token here is not the cluster's"}.items():
            if has:
                token.parent.mkdir()
                token.write_text(has)
            driver = drive(lab, cluster, HOME=str(lab.folder))
            assert driver.wait() == 2 and driver.printed.count("\n") == 1, driver.printed
            assert f"the cluster asks for a token, and {said}: copy its ~/.ray/auth_token" in driver.printed
    assert lab.states.total() == 0


def test_addresses_where_no_cluster_is(make_lab: MakeLab) -> None:
    lab = make_lab(searched("Random(trials=6)"), "addresses without a cluster")
    for address, said in {
        "127.0.0.1:9": "cannot be reached (Connection refused): is the head up",
        "ray://127.0.0.1:10001": "`ray start --address=HOST:6379 --num-cpus=0`",
        "node7": "write HOST:PORT",
    }.items():
        driver = lab.start("--address", address)
        assert driver.wait() == 2 and driver.printed.count("\n") == 1, driver.printed
        assert said in driver.printed and f"--address {address}" in driver.printed
        assert not lab.database.exists()


LOSSES = {
    "a machine's power goes": lambda node: node.kill(),
    "a machine's part of Ray dies": lambda node: node.kill_raylet(),
    "a machine stands still": lambda node: node.freeze(),
    "a machine's cable is pulled": lambda node: node.pull() if isolates() else node.freeze(),
}


@pytest.mark.faults_long
def test_a_machine_lacks_a_package(make_lab: MakeLab, folder: Path) -> None:
    """What is installed is not shipped: the environments have to agree, and no trial fails for that."""
    lab = make_lab(searched("Random(trials=6)"), "cluster: a package is installed on the driver's machine alone")
    code = lab.folder / "fakes.py"
    code.write_text("import onlyhere\n" + code.read_text())
    installed = lab.folder / "site-packages"
    installed.mkdir()
    (installed / "onlyhere.py").touch()
    with Cluster(folder, FAKE_LOG=str(lab.epochs_log)) as cluster:
        cluster.join(1)
        driver = drive(lab, cluster, PYTHONPATH=str(installed), **PLAIN)
        assert driver.wait() == 75 and lab.states["FAIL"] == 0, driver.printed
        assert "No module named 'onlyhere'; `harness resume fake` goes on" in driver.printed, driver.printed
        installed.rename(lab.folder / "packages")  # from where it is shipped
        driver = drive(lab, cluster, PYTHONPATH=str(lab.folder / "packages"), **PLAIN)
        assert driver.wait() == 0, driver.printed
    lab.assert_whole(6, caused=1)


@pytest.mark.faults_long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_machine_is_lost(make_lab: MakeLab, folder: Path, loss: str) -> None:
    lab = make_lab(searched("Random(trials=30)"), f"cluster: {loss}")
    with Cluster(folder, FAKE_LOG=str(lab.epochs_log), FAKE_PAUSE="0.5") as cluster:
        first, _ = cluster.join(1), cluster.join(1)
        driver = drive(lab, cluster)
        lab.wait_for(driver, lambda: lab.states["RUNNING"] == 2 and lab.states["COMPLETE"] >= 8)
        LOSSES[loss](first)
        assert driver.wait() == 0, driver.printed
        assert driver.printed.count("it goes on with another worker") == 1, driver.printed
        assert "(raylet)" not in driver.printed, "what Ray has to say of that"
    lab.assert_whole(30, caused=1)


ALONE = pytest.mark.skipif(not isolates(), reason="machines cannot be told apart here")


def pictures(folder: Path) -> Path:
    """Of two shades, as a folder of classes."""
    for part, shade, number in product(("train", "test"), (60, 190), range(20)):
        place = folder / part / str(shade)
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), shade + number).save(place / f"{number}.png")
    return folder


@pytest.mark.faults_long
@pytest.mark.timeout(600)
@ALONE
@pytest.mark.parametrize("few", [True, False], ids=["one", "all"])
def test_machines_have_no_pictures(make_lab: MakeLab, folder: Path, few: bool) -> None:
    """One that fails at once would be given trial after trial. Where all do the run ends, and no trial has failed."""
    study = real(trials=8).replace("Training(", 'Training(dataset="folder", ')
    lab = make_lab(study, f"cluster: {'a machine has' if few else 'machines have'} no pictures")
    data = pictures(lab.folder / "data")
    with Cluster(folder) as cluster:
        cluster.join(1, hidden=(data,))
        whole = cluster.join(1, hidden=() if few else (data,))
        driver = drive(lab, cluster, "--data", str(data))
        assert driver.wait() == (0 if few else 75), driver.printed
        aside = "(10.77.0.2) is set aside for 10 minutes: dataset='folder': there is no folder"
        assert driver.printed.count(aside) == 1 and lab.states["FAIL"] == 0, driver.printed
        if not few:
            assert "stopped: no machine of the cluster can train, as " in driver.printed
            whole.kill()
            cluster.join(1)
            driver = drive(lab, cluster, "--data", str(data))
            assert driver.wait() == 0, driver.printed
    lab.assert_whole(8, caused=1 if few else 2)


@pytest.mark.faults_long
@pytest.mark.timeout(900)
@ALONE
@pytest.mark.parametrize("times", [1, 2])
def test_the_head_is_lost_and_begun_again(make_lab: MakeLab, folder: Path, times: int) -> None:
    lab = make_lab(searched("Random(trials=30)"), "cluster: the head is lost, begun again, and all machines with it")
    with Cluster(folder, FAKE_LOG=str(lab.epochs_log), FAKE_PAUSE="0.5") as cluster:
        node = cluster.join(2)
        driver = drive(lab, cluster)
        for time_ in range(times):
            lab.wait_for_rows(driver, 4 + 6 * time_)
            cluster.head.kill()
            lab.wait_for(driver, lambda count=time_ + 1: driver.printed.count("is lost: this run waits for it") == count)
            assert lab.states["RUNNING"] > 0
            for one in (cluster.head, node):
                one.kill()
                one.start()
                one.wait()
        assert driver.wait() == 0, driver.printed
    lab.assert_whole(30, caused=times)


@pytest.mark.faults_long
@pytest.mark.timeout(600)
@ALONE
def test_the_head_is_lost_for_good(make_lab: MakeLab, folder: Path) -> None:
    lab = make_lab(searched("Random(trials=30)"), "cluster: the head is lost, the study ends elsewhere")
    with Cluster(folder, FAKE_LOG=str(lab.epochs_log), FAKE_PAUSE="0.5") as cluster:
        cluster.join(2)
        driver = drive(lab, cluster)
        lab.wait_for_rows(driver, 4)
        cluster.head.kill()
        lab.wait_for(driver, lambda: "is lost: this run waits for it" in driver.printed)
        driver.send(signal.SIGINT)
        assert driver.wait() == 130, driver.printed
    lab.begin = ()
    lab.run_to_the_end()
    lab.assert_whole(30, caused=1)


@pytest.mark.faults_long
@pytest.mark.timeout(600)
def test_the_driver_is_shot_and_machines_are_swapped(make_lab: MakeLab, folder: Path) -> None:
    lab = make_lab(searched("Random(trials=30)"), "cluster: kill -9 of the driver, other machines meanwhile")
    with Cluster(folder, FAKE_LOG=str(lab.epochs_log), FAKE_PAUSE="0.5") as cluster:
        first = cluster.join(1)
        driver = drive(lab, cluster)
        lab.wait_for_rows(driver, 4)
        assert driver.shoot()
        cluster.join(2)
        first.kill()
        driver = drive(lab, cluster)
        assert driver.wait() == 0, driver.printed
    lab.assert_whole(30, caused=2)
