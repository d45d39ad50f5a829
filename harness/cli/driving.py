"""What every verb that trains takes: declared once, given to the verb as one value."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from harness.cli.options import (
    DATABASE,
    GPU_NUMBERS,
    Address,
    AsJson,
    BackendName,
    Code,
    Concurrency,
    Cpus,
    Data,
    For,
    Gpus,
    GpuShare,
    KeepWeights,
    NoReuse,
    OnFinish,
    RetryFailed,
    Runs,
    Storage,
    TakeOver,
    Trackers,
    gpu_share,
    numbers,
    seconds,
)

if TYPE_CHECKING:
    from harness.run import Options
    from harness.shard import Shard


@dataclass(frozen=True, kw_only=True)
class Driving:
    """How a run is driven, as it was given on the command line; changes none of its numbers."""

    storage: Storage = DATABASE
    data: Data = None
    backend: BackendName = "ray"
    concurrency: Concurrency = None
    cpus_per_trial: Cpus = 1
    gpus_per_trial: GpuShare = None
    gpus: Gpus = None
    address: Address = None
    runs: Runs = None
    keep: KeepWeights = "front"
    code: Code = field(default_factory=list)
    time_limit: For = None
    no_reuse: NoReuse = False
    retry_failed: RetryFailed = False
    take_over: TakeOver = False
    on_finish: OnFinish = None
    trackers: Trackers = field(default_factory=list)
    as_json: AsJson = False

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders of the user's modules."""
        return tuple(str(folder.resolve()) for folder in self.code)

    def options(
        self,
        *,
        data: Path | None = None,
        trials: int | None = None,
        promote: int | None = None,
        shard: "Shard | None" = None,
        reuse_from: list[str] | None = None,
    ) -> "Options":
        """As the run takes them, with what only some verbs have; `data` is where they are unless the user names a folder."""
        from harness.execution.backend import Resources
        from harness.execution.ledger import Rules
        from harness.run import Options

        return Options(
            storage=self.storage,
            backend=self.backend,
            resources=Resources(
                self.concurrency,
                self.cpus_per_trial,
                gpu_share(self.gpus_per_trial),
                self.address,
                numbers(self.gpus, "--gpus", GPU_NUMBERS) or None,
            ),
            data=self.data or data or Options().data,
            runs=self.runs,
            code=self.folders,
            rules=Rules(
                trials=trials,
                seconds=seconds(self.time_limit),
                retry_failed=self.retry_failed,
                keep=self.keep,
                promote=promote or 0,
                reuse=not self.no_reuse,
                shard=shard,
                reuse_from=tuple(reuse_from or ()),
            ),
            take_over=self.take_over,
            trackers=tuple(self.trackers),
        )


def drives(verb: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb the options of all that train; it gets them as `driving`."""
    own = [one for one in inspect.signature(verb).parameters.values() if one.name != "driving"]
    types = get_type_hints(Driving, include_extras=True)
    shared = [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=one.default if one.default_factory is MISSING else one.default_factory(),
            annotation=types[one.name],
        )
        for one in fields(Driving)
    ]

    @wraps(verb)
    def whole(**given: Any) -> None:
        driving = Driving(**{one.name: given.pop(one.name) for one in shared})
        verb(**given, driving=driving)

    keyword_only = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
    whole.__signature__ = inspect.Signature([*keyword_only, *shared])  # type: ignore[attr-defined]
    whole.__annotations__ = {one.name: one.annotation for one in (*own, *shared)}
    return whole
