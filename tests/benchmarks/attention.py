"""What attention costs: every ratio from one process, in rounds that alternate, in bf16 with channels last.

On a CPU one thread works and its own processor time counts, so that what else the machine does disturbs little; on a GPU the
clock runs from one synchronisation to the next, and what can be compiled is measured compiled too. Four questions:

map     ExpAtt's map, forward and backward with its construction and the gradient of its radii, against the naive dense form,
        and the path that is chosen against the one that is not.
step    A training step of ExpAtt-ResNet-50 (stages 2 to 4, 224 px, batch 8) against plain ResNet-50's.
kinds   A training step of ResNet-50 with every kind of attention against the plain one's, beside the ratio of their MACs.
cores   AA's core against fused attention with a tensor of biases; AA and GSA against the same mathematics written naively.

    python tests/benchmarks/attention.py [--only map step kinds cores] [--out FILE] [--device cpu]
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import AA, ATTENTIONS, GSA, Attention, Custom, ExpAtt, ResNet, Site
from harness.cost import Shape, network_cost
from harness.networks.attention import expatt
from harness.networks.attention.augmented import MultiHead
from harness.networks.attention.expatt import DistanceMap
from harness.networks.attention.gsa import GSA2d
from harness.networks.build import build, seeded_attention

HERE = Path(__file__).resolve().parent
BF16, LAST = torch.bfloat16, torch.channels_last
AIMS: dict[tuple[int, int, int], tuple[float, float | None]] = {
    (56, 8, 8): (100, None),
    (32, 128, 8): (12, 4),
    (28, 16, 8): (30, 6),
    (16, 128, 8): (2, 1.2),
    (14, 16, 24): (2, 1.4),
    (8, 128, 16): (1, 1),
    (7, 16, 48): (1, 1),
}
"""Side, batch and channels of a map: how many times faster than the naive form it is to be with 8 radii and with one."""
STEP_AIM, CORE_AIM = 1.08, 3.0
PATIENCE = 6.0
"""Seconds of training steps after which no further round begins."""
IMAGENET = Shape(3, 224, 224, 1000)
Run = Callable[[], object]


# -- the clock --------------------------------------------------------------------------------------------------------


def seconds(run: Run, device: str, times: int = 1) -> float:
    """Of one of `times` runs in a row."""
    if device != "cpu":
        torch.cuda.synchronize()
    clock = time.thread_time if device == "cpu" else time.perf_counter
    start = clock()
    for _ in range(times):
        run()
    if device != "cpu":
        torch.cuda.synchronize()
    return (clock() - start) / times


def alternating(runs: dict[str, Run], device: str, budget: float, rounds: int = 7) -> dict[str, list[float]]:
    """Milliseconds of each run in each round; one that takes long is run less often, at least once after its warm-up."""
    counts = {}
    for name, run in runs.items():
        first = seconds(run, device)
        again = seconds(run, device) if first < 1 else first
        counts[name] = budget / rounds / max(again, 1e-6)
    found: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds):
        for name, run in runs.items():
            if index == 0 or counts[name] > 0.3:
                found[name].append(1000 * seconds(run, device, max(1, int(counts[name]))))
    return found


def fastest(times: dict[str, list[float]]) -> dict[str, float]:
    """What a run takes where nothing disturbs it, in milliseconds."""
    return {name: min(each) for name, each in times.items()}


def ways(device: str) -> list[str]:
    return ["eager"] if device == "cpu" else ["eager", "compiled"]


def as_run(module: Callable[..., Tensor], way: str) -> Callable[..., Tensor]:
    return module if way == "eager" else torch.compile(module)


def backward_too(module: Callable[..., Tensor], inputs: list[Tensor], parameters: list[nn.Parameter]) -> Run:
    """A forward and a backward pass with gradients of the inputs and the parameters."""
    given = [tensor.detach().requires_grad_() for tensor in inputs]
    out = module(*given)
    slope = torch.randn(out.shape, device=out.device).to(out.dtype)
    if out.dim() == 4:
        slope = slope.to(memory_format=LAST)

    def run() -> None:
        slopes = torch.autograd.grad(module(*given), [*given, *parameters], slope)
        for found in slopes[: len(given)]:  # the layer before wants them in its own layout
            found.contiguous(memory_format=LAST)

    return run


# -- ExpAtt's map -----------------------------------------------------------------------------------------------------


def naive_map(module: DistanceMap, kernel: str) -> Callable[[Tensor], Tensor]:
    """The map as the paper writes it: all pairs of positions, normalised, times the values."""

    def forward(values: Tensor) -> Tensor:
        (batch, _, height, width), radii = values.shape, module.radius
        assert radii is not None
        radius = radii.view(-1, 1, 1)
        places = torch.cartesian_prod(
            torch.arange(height, device=values.device), torch.arange(width, device=values.device)
        ).float()
        squared = (places[:, None] - places).square().sum(-1)
        weights = torch.exp(-squared / (2 * radius**2) if kernel == "gaussian" else -squared.sqrt() / radius)
        weights = (weights / weights.sum(-1, keepdim=True)).to(values.dtype)
        out = torch.einsum("hij,bhcj->bhci", weights, values.reshape(batch, len(radius), -1, height * width))
        return out.reshape(values.shape).contiguous(memory_format=LAST)

    return forward


def forced(module: DistanceMap, limit: int) -> Callable[[Tensor], Tensor]:
    """The map by the dense path up to a number of positions."""
    usual = expatt.DENSE

    def forward(values: Tensor) -> Tensor:
        expatt.DENSE = limit
        out: Tensor = module(values)
        expatt.DENSE = usual
        return out

    return forward


def maps(device: str) -> Iterator[dict[str, Any]]:
    for kernel, (size, aims), heads, way in product(["gaussian", "laplacian_l2"], AIMS.items(), [8, 1], ways(device)):
        side, batch, channels = size
        if kernel != "gaussian" and side > 28:
            continue  # a kernel that does not factorise has dense maps only, which do not fit a stage this large
        per: Any = "head" if heads > 1 else "layer"
        slot = ExpAtt(kernel=kernel, radius_per=per, heads=heads)
        module = DistanceMap(slot).to(device)
        x = torch.randn(batch, channels, side, side, device=device).to(BF16).to(memory_format=LAST)
        naive = naive_map(module, kernel)
        torch.testing.assert_close(module(x).float(), naive(x).float(), rtol=0.05, atol=0.05)
        forms: dict[str, Callable[[Tensor], Tensor]] = {"chosen": module, "naive": naive}
        if way == "eager" and kernel == "gaussian":
            forms |= {"separable": forced(module, 0)} | ({"dense": forced(module, 10**9)} if side < 56 else {})
        parameters = list(module.parameters())
        runs = {name: backward_too(as_run(form, way), [x], parameters) for name, form in forms.items()}
        times = fastest(alternating(runs, device, budget=0.4))
        aim = aims[heads == 1] if kernel == "gaussian" and device == "cpu" else None
        path = "separable" if slot.factorises(side, side) else "dense"
        shape = {"kernel": kernel, "side": side, "batch": batch, "channels": channels, "radii": heads, "way": way}
        yield shape | {"path": path, "ms": times, "times_faster": times["naive"] / times["chosen"], "aim": aim}


def map_line(row: dict[str, Any]) -> list[str]:
    ms, name = row["ms"], f"{row['kernel']} {row['side']} x {row['side']}, batch {row['batch']}, dv {row['channels']}"
    others = [f"{ms[path]:.2f}" if path in ms else "" for path in ("naive", "dense", "separable", "chosen")]
    aim = "" if row["aim"] is None else f"{row['aim']:g}"
    return [name, str(row["radii"]), row["way"], *others, row["path"], f"{row['times_faster']:.1f}", aim]


# -- training steps ---------------------------------------------------------------------------------------------------


def network(slot: Attention | None) -> ResNet:
    return ResNet(depth=50, stages=(None, slot, slot, slot))  # type: ignore[arg-type]


def step(slot: Attention | None, batch: int, device: str, way: str) -> Run:
    """A training step of ResNet-50 with a module in its stages 2 to 4."""
    model = build(network(slot), IMAGENET, device=device).to(memory_format=LAST)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    x = torch.randn(batch, 3, 224, 224, device=device).to(memory_format=LAST)
    y = torch.arange(batch, device=device)
    forward = as_run(model, way)

    def run() -> None:
        with torch.autocast(device, BF16):
            loss = F.cross_entropy(forward(x), y)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()

    return run


def beside_plain(slot: Attention, plain: Run, batch: int, device: str, way: str, rounds: int) -> dict[str, Any]:
    """The time of a step relative to the plain network's, the median over rounds of both, and that of its MACs."""
    runs = {"plain": plain, "with": step(slot, batch, device, way)}
    for run in runs.values():
        run()
    times: list[dict[str, float]] = []
    while len(times) < rounds and sum(each["with"] for each in times) < PATIENCE:
        times.append({name: seconds(run, device) for name, run in runs.items()})
    ratio = statistics.median(each["with"] / each["plain"] for each in times)
    found, base = (network_cost(network(one), IMAGENET) for one in (slot, None))
    return {
        "attention": shown(slot),
        "way": way,
        "plain_ms": 1000 * min(each["plain"] for each in times),
        "ms": 1000 * min(each["with"] for each in times),
        "time_ratio": ratio,
        "mac_ratio": found.macs / base.macs,
        "param_ratio": found.params / base.params,
    }


def shown(slot: Attention) -> str:
    """A module by its class and by the knobs that are not at their defaults."""
    knobs = {name: value for name, value in slot.model_dump(exclude_defaults=True).items() if name != "kind"}
    return f"{type(slot).__name__}({', '.join(f'{name}={value!r}' for name, value in knobs.items())})"


def steps(device: str) -> Iterator[dict[str, Any]]:
    batch = 8 if device == "cpu" else 128
    for way in ways(device):
        plain = step(None, batch, device, way)
        for slot in (ExpAtt(), ExpAtt(radius_per="head")):
            yield beside_plain(slot, plain, batch, device, way, rounds=7) | {"aim": STEP_AIM if device == "cpu" else None}


VARIANTS: list[Attention] = [
    ExpAtt(radius_per="head"),
    ExpAtt(kernel="cauchy"),
    ExpAtt(kernel="uniform"),
    ExpAtt(heads=1, multiple=1, largest=14),
    AA(position="none"),
    AA(largest=None),
    GSA(position=False),
    GSA(content=False),
]


def kinds(device: str) -> Iterator[dict[str, Any]]:
    batch = 4 if device == "cpu" else 128
    for way in ways(device):
        plain = step(None, batch, device, way)
        for slot in [*(kind() for kind in ATTENTIONS if kind is not Custom), *VARIANTS]:
            yield beside_plain(slot, plain, batch, device, way, rounds=3)


def step_line(row: dict[str, Any]) -> list[str]:
    numbers = [f"{row['plain_ms']:.0f}", f"{row['ms']:.0f}", f"{row['time_ratio']:.3f}", f"{row['mac_ratio']:.3f}"]
    return [row["attention"], row["way"], *numbers, f"{row['time_ratio'] / row['mac_ratio']:.2f}"]


# -- AA and GSA against naive forms -----------------------------------------------------------------------------------


def heads_of(qkv: Tensor, module: MultiHead) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of (batch, heads, positions, features), queries scaled."""
    inner = module.heads * module.keys
    parts = torch.split(qkv.flatten(2), [inner, inner, qkv.shape[1] - 2 * inner], 1)
    query, key, value = (part.unflatten(1, (module.heads, -1)).mT for part in parts)
    return query * module.keys**-0.5, key, value


def offsets(side: int, table: Tensor) -> Tensor:
    """The row of a table for every pair of places on an axis, (side, side, features)."""
    places = torch.arange(side, device=table.device)
    return table[places - places[:, None] + len(table) // 2]


def joined(out: Tensor, like: Tensor) -> Tensor:
    return out.mT.flatten(1, 2).unflatten(2, like.shape[2:]).contiguous(memory_format=LAST)


def aa_biases(module: MultiHead, query: Tensor, height: int, width: int) -> Tensor:
    """q.r_rows[dy] + q.r_columns[dx] of every pair of positions."""
    assert module.rows is not None and module.columns is not None
    grid = query.unflatten(2, (height, width))
    rows = torch.einsum("bhyxd,yzd->bhyxz", grid, offsets(height, module.rows).to(query.dtype))
    columns = torch.einsum("bhyxd,xzd->bhyxz", grid, offsets(width, module.columns).to(query.dtype))
    return (rows.unsqueeze(-1) + columns.unsqueeze(-2)).flatten(4).flatten(2, 3)


def naive_aa(module: MultiHead) -> Callable[[Tensor], Tensor]:
    """A logit for every pair of positions, its content and its two offsets added up."""

    def forward(qkv: Tensor) -> Tensor:
        query, key, value = heads_of(qkv, module)
        logits = torch.einsum("bhid,bhjd->bhij", query, key) + aa_biases(module, query, *qkv.shape[2:])
        return joined(torch.einsum("bhij,bhjd->bhid", logits.softmax(-1), value), qkv)

    return forward


def biased_aa(module: MultiHead) -> Callable[[Tensor], Tensor]:
    """torch's fused attention, with the logits of the offsets as its tensor of biases."""

    def forward(qkv: Tensor) -> Tensor:
        query, key, value = heads_of(qkv, module)
        biases = aa_biases(module, query, *qkv.shape[2:])
        return joined(F.scaled_dot_product_attention(query, key, value, attn_mask=biases, scale=1.0), qkv)

    return forward


def naive_gsa(module: GSA2d) -> Callable[[Tensor], Tensor]:
    """Both branches by einsum, each pair of places of an axis with its own relative key."""

    def forward(x: Tensor) -> Tensor:
        assert module.content is not None and module.columns is not None and module.rows is not None
        parts = module.qkv(x).chunk(3, 1)
        query, key, value = (part.unflatten(1, (module.content.heads, -1)) for part in parts)
        weights = key.flatten(3).softmax(-1).view_as(key)
        summary = torch.einsum("bhdyx,bhcyx->bhdc", weights, value)
        content = torch.einsum("bhdyx,bhdc->bhcyx", query, summary)
        height, width = x.shape[2:]
        by_row = torch.einsum("bhdyx,yzd->bhyzx", query, offsets(height, middle(module.columns.table, height)).to(x.dtype))
        down = module.norm(torch.einsum("bhyzx,bhczx->bhcyx", by_row, value).flatten(1, 2)).view_as(value)
        by_column = torch.einsum("bhdyx,xzd->bhyxz", query, offsets(width, middle(module.rows.table, width)).to(x.dtype))
        across = torch.einsum("bhyxz,bhcyz->bhcyx", by_column, down)
        return (content + across).flatten(1, 2).contiguous(memory_format=LAST)

    return forward


def middle(table: Tensor, side: int) -> Tensor:
    """The rows of a table that an axis of this side uses."""
    spare = (len(table) - (2 * side - 1)) // 2
    return table[spare : len(table) - spare]


def cores(device: str) -> Iterator[dict[str, Any]]:
    for side, way in product([14, 28], ways(device)):
        site, channels = Site(256, 256, side, side), 2 * 160 + 24
        core = seeded_attention(AA(largest=None), site, 0, "core").to(device)
        layer = seeded_attention(GSA(), site, 0, "layer").to(device, BF16)
        attend = core.attend
        assert isinstance(attend, MultiHead) and isinstance(layer, GSA2d)
        attend.to(BF16)
        qkv = torch.randn(16, channels, side, side, device=device).to(BF16).to(memory_format=LAST)
        x = torch.randn(16, 256, side, side, device=device).to(BF16).to(memory_format=LAST)
        forms: list[tuple[str, nn.Module, dict[str, Callable[[Tensor], Tensor]], Tensor]] = [
            ("AA's core", attend, {"fused with biases": biased_aa(attend), "naive": naive_aa(attend)}, qkv),
            ("GSA", layer, {"naive": naive_gsa(layer)}, x),
        ]
        for name, module, others, given in forms:
            parameters = list(module.parameters())
            for other in others.values():
                torch.testing.assert_close(module(given).float(), other(given).float(), rtol=0.1, atol=0.1)
            all_forms: dict[str, Callable[[Tensor], Tensor]] = {"ours": module} | others
            runs = {key: backward_too(as_run(form, way), [given], parameters) for key, form in all_forms.items()}
            ms = fastest(alternating(runs, device, budget=1.5, rounds=3))
            for key in others:
                aim = CORE_AIM if key == "fused with biases" and device == "cpu" else None
                row = {"what": name, "side": side, "way": way, "against": key, "ours_ms": ms["ours"], "other_ms": ms[key]}
                yield row | {"times_faster": ms[key] / ms["ours"], "aim": aim}


def core_line(row: dict[str, Any]) -> list[str]:
    what, aim = f"{row['what']}, {row['side']} x {row['side']}", "" if row["aim"] is None else f"{row['aim']:g}"
    numbers = [f"{row['ours_ms']:.1f}", f"{row['other_ms']:.1f}", f"{row['times_faster']:.2f}", aim]
    return [what, row["way"], row["against"], *numbers]


# -- all of it --------------------------------------------------------------------------------------------------------

HEADS = ["map", "radii", "way", "naive ms", "dense ms", "separable ms", "chosen ms", "path", "times faster", "aim"]
STEPS = ["ResNet-50 with", "way", "plain ms", "ms", "time", "MACs", "time / MACs"]
CORES = ["", "way", "against", "ours ms", "other ms", "times faster", "aim"]
Part = tuple[list[str], Callable[[str], Iterator[dict[str, Any]]], Callable[[dict[str, Any]], list[str]]]
PARTS: dict[str, Part] = {
    "map": (HEADS, maps, map_line),
    "step": (STEPS, steps, step_line),
    "kinds": (STEPS, kinds, step_line),
    "cores": (CORES, cores, core_line),
}


def machine(device: str) -> dict[str, Any]:
    listing = Path("/proc/cpuinfo")
    words = listing.read_text().splitlines() if device == "cpu" and listing.exists() else []
    model = next((line.split(":")[1].strip() for line in words if line.startswith("model name")), platform.processor())
    units = [flag for flag in ("amx_bf16", "avx512_bf16") if any(flag in line.split() for line in words)]
    return {
        "device": model if device == "cpu" else torch.cuda.get_device_name(),
        "bf16_units": units,
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("attention-harness", "torch", "timm")}
        | {"python": platform.python_version()},
        "load_before": round(os.getloadavg()[0], 2),
    }


def rounded(value: Any) -> Any:
    """Numbers to four digits."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts; the others stay stored")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "attention.json")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU where there is one")
    given = parser.parse_args()
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    stored = json.loads(given.out.read_text()) if given.out.exists() else {}
    for name in given.only:
        headings, measure, line = PARTS[name]
        print(f"\n| {' | '.join(headings)} |\n|{'---|' * len(headings)}", flush=True)
        start = time.perf_counter()
        rows: list[dict[str, Any]] = []
        found = stored.setdefault(device, {})[name] = machine(device) | {"rows": rows}
        for row in measure(device):
            rows.append(rounded(row))
            print(f"| {' | '.join(line(row))} |", flush=True)
        found["seconds"] = round(time.perf_counter() - start)
        print(f"({found['seconds']} s)")
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
