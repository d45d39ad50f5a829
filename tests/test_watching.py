"""A study under way as another process sees it, and its picture in a terminal."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from harness.cli import main
from harness.config import ResNet, Training
from harness.live import Row, View, drawn
from harness.space import vary
from harness.storage.lease import Lease
from harness.study import Exhaustive, Study
from harness.trial import Outcome, Report
from harness.watching import Seen, look, watch
from tests.execution.desk import Desk, attention, curve

ROWS = tuple(
    Row(17 + place, 4 + place, 20, "91.20 %", 2.1, 83.0, f"node3 GPU {place}", "stage 2 none; " + "stage 3 ExpAtt; " * 6)
    for place in range(3)
)
STATES = {"complete": 12, "stopped": 3, "failed": 1}
VIEW = View("a-study-of-kernels", 60, STATES, 2, 28, 814, 2900, "accuracy 93.41 %  params 0.27 M", 5, rows=ROWS)


def shown(view: View, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)
    console.print(drawn(view, width))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [50, 80, 160])
def test_the_picture_fits_its_terminal(width: int) -> None:
    for view in (VIEW, replace(VIEW, name="long" * 40, rows=ROWS * 5), replace(VIEW, rows=())):
        lines = shown(view, width)
        assert max(map(len, lines)) <= width
        text = "\n".join(lines)
        assert "16 of 60 trials" in text and "1 failed" in text and "accuracy 93.41 %" in text
        assert ("17" in text and "91.20 %" in text) == bool(view.rows)


def test_what_was_chosen_and_devices_have_room_at_80_columns_and_at_160() -> None:
    narrow, wide = shown(VIEW, 80), shown(VIEW, 160)
    assert any(line.startswith("       stage 2 none; stage 3 ExpAtt") and line.endswith("…") for line in narrow)
    assert "28 screened out" in narrow[2] and "about 48 minutes left" in narrow[1]
    assert any("node3 GPU 2" in line and "0:01:23" in line and "stage 3 ExpAtt" in line for line in wide)
    assert any("node3 GPU 2" in line and "0:01:23" in line for line in narrow)
    assert not any("node3" in line for line in shown(VIEW, 50))


def test_another_process_sees_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = vary(ResNet, depth=8, stages=(None, None, attention))
    desk = Desk(tmp_path, Study(name="seen", space=space, training=Training(epochs=4), strategy=Exhaustive()))
    ledger = desk.open()
    ledger.store.set_attributes(ledger.study_id, {"expected": ledger.planned})
    with Lease.take(ledger.store.engine, ledger.study_id):
        first, second, third = (ledger.next() for _ in range(3))
        assert first is not None and second is not None and third is not None
        done = {"accuracy": 0.9, "loss": 1.0, "seconds": 0.4}
        ledger.report(first.number, Report(curve(4), Outcome("complete", done)))
        ledger.report(second.number, Report((), Outcome("failed", reason="it broke")))
        ledger.report(third.number, Report(curve(3), device="cuda:1"))
        seen = look("seen", desk.storage)
        view = seen.view
        assert seen.alive and view.planned == ledger.planned == 6
        assert view.states == {"complete": 1, "failed": 1} and view.front == 1
        assert "accuracy 90.00 %" in view.best and view.left is not None
        (row,) = view.rows
        assert (row.number, row.done, row.epochs, row.value, row.pace) == (third.number, 3, 4, "30.00 %", 0.1)
        assert row.age is not None and 0 <= row.age < 60 and row.chosen and row.device == "cuda:1"
        # 2 trials and three quarters took so long: 3 and a quarter are left
        assert seen.holder is not None
        assert view.left == pytest.approx((seen.now - seen.holder.since).total_seconds() / 2.75 * 3.25)
        lines = [seen.line(record, count) for count, record in enumerate(seen.finished, start=1)]
        assert lines[0].startswith("[1/6] trial 0: accuracy 90.00 %") and "[2/6] trial 1: failed: it broke (" in lines[1]
    desk.close()

    # once nobody runs it there is one look, which says so; a row that was cut short is not shown as running
    looks: list[Seen] = []
    watch("seen", desk.storage, looks.append)
    assert len(looks) == 1 and not looks[0].alive and looks[0].view.rows == ()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["harness", "status", "seen", "--watch", "--storage", desk.storage])
        with pytest.raises(SystemExit) as end:
            main.main()
    assert not end.value.code
    out = capsys.readouterr().out
    assert "seen: 2 of 6 trials, 1 failed; best accuracy 90.00 %" in out and "nobody runs seen" in out
