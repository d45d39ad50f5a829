"""Reading from Python."""

import gc
import subprocess
import sys
from collections.abc import Callable

import pytest

from harness.errors import StorageError
from harness.execution.ledger import Rules
from harness.record import uncollected
from harness.results import open_study
from harness.run import Options, run_study
from harness.study import Study


def test_a_study_as_a_frame(make_study: Callable[..., Study], storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_study(make_study(), Options(storage=storage, backend="local"))
    results = open_study("tiny", storage)
    frame = results.frame()
    assert storage not in repr(results), "a URL may hold a password"
    assert list(frame.index) == [0, 1, 2, 3] and set(frame["state"]) == {"complete"}
    assert {"stages.3.attention", "params", "macs", "accuracy", "seed", "key"} <= set(frame.columns)
    assert frame[frame["front"]].index.tolist() == [record.number for record in results.front()]
    monkeypatch.setenv("HARNESS_STORAGE", storage)
    assert open_study("tiny").frame().equals(frame)
    with pytest.raises(StorageError, match="did you mean 'tiny'"):
        open_study("tini", storage)


def test_reading_imports_neither_torch_nor_ray(make_study: Callable[..., Study], storage: str) -> None:
    run_study(make_study(), Options(storage=storage, backend="local", rules=Rules(trials=1)))
    code = (
        "import sys; from harness.results import open_study; "
        f"assert len(open_study('tiny', {storage!r}).frame()) == 1; "
        "sys.exit('torch' in sys.modules or 'ray' in sys.modules or 'optuna' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_cycles_are_looked_for_again_after_rows_were_made() -> None:
    def fails() -> None:
        raise ValueError(gc.isenabled())

    assert gc.isenabled() and not uncollected(gc.isenabled)() and gc.isenabled()
    assert not uncollected(lambda: uncollected(gc.isenabled)() or gc.isenabled())(), "an inner one leaves it to the outer"
    with pytest.raises(ValueError, match="False"):
        uncollected(fails)()
    assert gc.isenabled()
    gc.disable()
    try:
        assert not uncollected(gc.isenabled)() and not gc.isenabled(), "who had it off has it off"
    finally:
        gc.enable()
