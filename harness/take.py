"""`harness take`: a trial's network in a folder of its own, with what it takes to use it elsewhere."""

import importlib.util
import re
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.code import add_paths, source_file, source_hash
from harness.data.pictures import DataInfo
from harness.depot import Depot, depot
from harness.errors import CodeError, DataError, HarnessError, StudyError, one_line
from harness.parts.part import is_target
from harness.record import Record
from harness.report.words import NOUNS, counted, differences, listed, unit
from harness.storage.reader import Stored, read_records, read_studies
from harness.study import Study

if TYPE_CHECKING:
    from torch import Tensor

    from harness.networks.taken import Taken

Form = Literal["safetensors", "torch-export", "onnx"]
FILES: dict[Form, str] = {"torch-export": "network.pt2", "onnx": "network.onnx"}
"""What a form adds to weights, config and example."""
NEEDED = ("onnx", "onnxscript")
"""What torch needs to write ONNX."""
CODE = "code"


@dataclass(frozen=True)
class Parcel:
    """What was written."""

    study: str
    number: int
    folder: Path
    files: tuple[str, ...]
    reached: str
    """What the network reached, as recorded: accuracy 93.41 %."""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        found = {"study": self.study, "number": self.number, "folder": str(self.folder.resolve())}
        return found | {"files": list(self.files), "reached": self.reached, "notes": list(self.notes)}


def take(
    name: str,
    number: int,
    storage: str,
    out: Path,
    *,
    form: Form = "safetensors",
    runs: str | Path | None = None,
    data: Path | None = None,
) -> Parcel:
    """Writes weights, config and a loading example of a complete trial into a new folder.

    Raises a HarnessError in one line, and leaves nothing behind, where the trial, its weights or a library is missing."""
    from harness.networks import taken

    if form == "onnx" and any(importlib.util.find_spec(library) is None for library in NEEDED):
        raise HarnessError(f"--format onnx: {' and '.join(NEEDED)} are not installed: pip install 'attention-harness[onnx]'")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise HarnessError(f"--out {out}: there is something already; name a new folder")
    stored, record = _trial(name, number, storage)
    study, info = Study.from_json(stored.attributes["definition"]), DataInfo.from_json(stored.attributes["data"])
    weights = _weights(stored, record, storage, runs)
    levels, notes = _levels(stored, record, data)
    code, missing = _code(stored, record)
    add_paths(list(stored.attributes.get("places", {}).get("code", ())))
    told = {
        **{"study": stored.name, "number": record.number, "key": record.key, "seed": record.seed},
        **{"config": record.config_json, "shape": list(info.shape[:3]), "classes": info.shape.classes},
        **{"mean": levels and levels[0], "deviation": levels and levels[1]},
        **{"metrics": record.metrics, "costs": record.costs},
        **{"code": {target: stored.attributes["sources"][target] for target in (*code, *missing)}},
        **{"provenance": record.provenance},
    }
    notes += [
        f"{target} is not packed, as its source is gone or has changed since: have it at hand to load" for target in missing
    ]
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        taken.save(out, told, weights)
        for target, source in code.items():
            kept = out / CODE / Path(*target.partition(":")[0].split(".")).with_suffix(".py")
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, kept)
        network = taken.load(out)
        if form != "safetensors":
            _exported(network, out / FILES[form], form, info)
        (out / "load.py").write_text(example(info, packed=bool(code)), "utf-8")
        reached = _reached(study, record)
        (out / "README.md").write_text(readme(stored, record, info, reached, form, notes), "utf-8")
    except (OSError, HarnessError) as error:
        shutil.rmtree(out, ignore_errors=True)
        if not made:
            out.mkdir(exist_ok=True)
        if isinstance(error, OSError):
            raise HarnessError(f"--out {out}: cannot be written ({error.strerror}); name another folder") from None
        raise
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    return Parcel(stored.name, record.number, out, tuple(files), reached, tuple(notes))


# -- what there is ----------------------------------------------------------------------------------------------------


def _trial(name: str, number: int, storage: str) -> tuple[Stored, Record]:
    """A complete trial of a study; raises StudyError for any other."""
    stored = read_studies(storage, name)[0]
    records = {record.number: record for record in read_records(storage, stored.study_id)}
    if number not in records:
        has = f"it has {min(records)} to {max(records)}" if records else "it has none yet"
        raise StudyError(
            f"study {stored.name!r} has no trial {number} ({has}); `harness status {stored.name}` lists the front"
        )
    record = records[number]
    if record.state != "complete":
        remedy = {
            "running": "wait until it is finished",
            "stopped": f"`harness resume {stored.name} --promote 1` goes on with the best that was stopped",
        }.get(record.state, f"`harness status {stored.name}` lists the front")
        raise StudyError(f"trial {number} of {stored.name} is {record.state}, and has no final weights: {remedy}")
    return stored, record


def _weights(stored: Stored, record: Record, storage: str, runs: str | Path | None) -> "dict[str, Tensor]":
    """The final weights of a trial, bit for bit as recorded; raises a HarnessError where they are gone or others."""
    import torch

    from harness.training.checkpoint import FINAL, weights_hash

    looked = list(_folders(stored, record, storage, runs))
    folder = next((folder for folder in looked if FINAL in (folder.names() or ())), None)
    if folder is None:
        if record.reused is not None and " of " in str(record.reused["study"]):
            study, _, url = str(record.reused["study"]).partition(" of ")
            raise HarnessError(
                f"trial {record.number} of {stored.name} was taken over from another database: `harness take {study}"
                f" {record.reused['number']} --storage {url}` takes it from there"
            )
        where = f"under {looked[-1]}" if looked else "in a folder that the database knows"
        raise HarnessError(
            f"trial {record.number} of {stored.name} has no weights {where} (by default those of the front"
            f" alone are kept); name their folder by --runs, or train it again with fresh seeds:"
            f" `harness confirm {stored.name} --trials {record.number} --keep all`"
        )
    try:
        content = torch.load(folder.file(FINAL), map_location="cpu", weights_only=True)
        weights: dict[str, Tensor] = content["network"]
        key, found = content["key"], weights_hash(weights)
    except Exception as error:
        raise HarnessError(
            f"{folder / FINAL}: cannot be read ({one_line(error, 120)}); bring the file back, or train it again"
        ) from None
    if key != record.key or found != record.provenance.get("weights", found):
        raise HarnessError(
            f"{folder / FINAL}: these are not the weights that trial {record.number} recorded; name another --runs"
        )
    return weights


def _folders(stored: Stored, record: Record, storage: str, runs: str | Path | None) -> Iterator[Depot]:
    """Where a trial's weights may lie: its own place, that where it was trained before it was copied from another database,
    and that of the study it was taken over from."""
    if root := runs or stored.attributes.get("places", {}).get("runs"):
        yield depot(root) / stored.name / str(record.number)
    if record.origin is not None and "folder" in record.origin:
        yield depot(record.origin["folder"])
    if record.reused is not None:
        study, number = str(record.reused["study"]), str(record.reused["number"])
        first = next((one for one in read_studies(storage) if one.name == study), None)
        places = first.attributes.get("places", {}) if first is not None else {}
        for root in filter(None, (runs, places.get("runs"))):
            yield depot(root) / study / number


def _levels(stored: Stored, record: Record, data: Path | None) -> tuple[tuple[list[float], list[float]] | None, list[str]]:
    """Mean and deviation of the channels that the trial was trained with, from 0 to 1; None, with a note, where only the
    pictures tell and they are not here."""
    from harness.data.batches import open_batches
    from harness.data.sources import open_data

    training = record.config.training
    if training.dataset == "own":
        return None, ["the study's own loop fed the network: give it what that loop gave"]
    folder = data or Path(stored.attributes.get("places", {}).get("data", "data"))
    try:
        pictures, info = open_data(training, folder)
        if info.fingerprint != stored.attributes["data"]["fingerprint"]:
            raise DataError(f"the pictures under {folder} are not those the study was started with")
    except DataError as error:
        return None, [f"pictures are not normalised, do it yourself, or name their folder by --data: {error}"]
    batches = open_batches(pictures, info, training, seed=record.seed, device="cpu")
    mean, deviation = ([value / 255 for value in levels.tolist()] for levels in (batches.mean, batches.deviation))
    return (mean, deviation), []


def _code(stored: Stored, record: Record) -> tuple[dict[str, Path], list[str]]:
    """The source files of the user's modules in a config, and the names of those that are no longer as they were."""
    add_paths(list(stored.attributes.get("places", {}).get("code", ())))
    found: dict[str, Path] = {}
    missing = []
    known = stored.attributes.get("sources", {})
    for target in dict.fromkeys(text for text in _texts(record.config_json) if text in known and is_target(text)):
        try:
            if source_hash(target) != known[target]:
                raise CodeError(f"{target} has changed")
            found[target] = source_file(target)
        except CodeError:
            missing.append(target)
    return found, missing


def _texts(plain: Any) -> Iterator[str]:
    """Every string in JSON."""
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, dict | list):
        for value in plain.values() if isinstance(plain, dict) else plain:
            yield from _texts(value)


# -- what is written --------------------------------------------------------------------------------------------------


def _exported(network: "Taken", path: Path, form: Form, info: DataInfo) -> None:
    """The network as a program without Python code, for batches of any size; raises HarnessError where torch cannot."""
    import torch

    pictures = torch.rand(2, *info.shape[:3])
    sizes = ({0: torch.export.Dim("batch", min=1)},)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(network, (pictures,), dynamic_shapes=sizes)
            if form == "torch-export":
                torch.export.save(program, path)
            else:
                names: dict[str, Any] = {"input_names": ["pictures"], "output_names": ["scores"]}
                torch.onnx.export(program, (), path, **names, dynamo=True, external_data=False, verbose=False)
    except Exception as error:
        raise HarnessError(
            f"--format {form}: torch cannot export this network ({one_line(error, 200)}); leave --format out"
        ) from None


def _reached(study: Study, record: Record) -> str:
    """accuracy 93.41 %, 0.27 M parameters, 40.6 M MACs"""
    metrics = [objective.metric for objective in study.objectives if objective.metric not in record.costs]
    values = {metric: record.value(metric) for metric in (*metrics, *record.costs)}
    words = {
        metric: unit(metric, [value], study.units.get(metric, "")).text(value).replace("\N{NO-BREAK SPACE}", " ")
        for metric, value in values.items()
    }
    return ", ".join(
        f"{text} {NOUNS[metric]}" if metric in record.costs else f"{metric} {text}" for metric, text in words.items()
    )


def example(info: DataInfo, *, packed: bool) -> str:
    """Five lines that load the network, and one more for code that is packed beside it."""
    shape = ", ".join(map(str, info.shape[:3]))
    here = f'sys.path.insert(0, str(Path(__file__).parent / "{CODE}"))\n' if packed else ""
    return (
        f"{'import sys' + chr(10) if packed else ''}from pathlib import Path\nimport torch\n"
        "from harness.results import load_network\n"
        f"{here}network = load_network(Path(__file__).parent)\n"
        f"print(network(torch.rand(1, {shape})).argmax(1))  # pictures from 0 to 1; in evaluation mode, on the CPU\n"
    )


def readme(stored: Stored, record: Record, info: DataInfo, reached: str, form: Form, notes: list[str]) -> str:
    """What the folder holds and how it is used."""
    chosen = "; ".join(map(str, differences(record.params, record.params))) or "the one config"
    channels, height, width = info.shape[:3]
    versions = record.provenance.get("versions", {})
    made = listed(f"{library} {versions[library]}" for library in ("attention-harness", "torch") if library in versions)
    wants = f"pictures from 0 to 1 ({channels} x {height} x {width})" + ("; it normalises them itself" if not notes else "")
    lines = [
        f"# {stored.name}, trial {record.number}",
        "",
        f"{chosen}. {reached[:1].upper()}{reached[1:]}; {counted(record.epochs, 'epoch')} on {info.dataset}, seed"
        f" {record.seed}.",
        "The accuracy is that of the validation part, in the precision of the training"
        f" ({record.config_json.get('training', {}).get('precision')}).",
        "",
        "    pip install attention-harness  # Ray, Optuna and a database are not used",
        "    python load.py",
        "",
        f"`load_network` gives an `nn.Module` of {wants} to {info.shape.classes} scores. Its `network` alone takes what is"
        " normalised already.",
        "`weights.safetensors` holds the weights by name; `Training(init='.../weights.safetensors')` begins another study"
        " with them. `config.json` says how they were trained.",
    ]
    if form == "torch-export":
        lines += ["", f"`torch.export.load('{FILES[form]}').module()(pictures)` needs torch alone."]
    if form == "onnx":
        lines += [
            "",
            f"`onnxruntime.InferenceSession('{FILES[form]}').run(None, {{'pictures': pictures}})` needs no torch.",
        ]
    lines += ["", *(f"Note: {note}." for note in notes)] if notes else []
    commit = record.provenance.get("commit")
    lines += ["", re.sub(r"\s+", " ", f"Trained with {made or 'versions unknown'}{f', commit {commit}' if commit else ''}.")]
    return "\n".join(lines) + "\n"
