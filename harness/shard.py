"""A part of a study that is run on its own, in a database of its own, beside the others: 3/32 is the third of thirty-two.

A design, whose cells are known beforehand, is split by its seeds, so that what is compared stays together; random draws and
configs without seeds to compare are dealt in turn. Merged, the parts are the whole study, trial by trial. A search that
looks at its results becomes a search of its own for each part, with a share of the trials.
"""

import contextlib
import json
import os
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.design import Sequential
from harness.errors import StorageError, StudyError, one_line
from harness.report.words import counted
from harness.space import Params
from harness.study import Exhaustive, Random, Search, Study

if TYPE_CHECKING:
    from harness.strategies.proposers import Proposal, Proposer

STRIDE = 1_000_033
"""Between the sampler seeds of two searches: more than a search has rows."""


@dataclass(frozen=True)
class Shard:
    """Which part, of how many."""

    index: int
    """From 1."""
    of: int
    arms: bool = False
    """Split between arms too, so that there may be more parts than seeds."""

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @property
    def name(self) -> str:
        """As part of a file's name."""
        return f"{self.index}-of-{self.of}"

    @staticmethod
    def parse(text: str, *, arms: bool = False) -> "Shard":
        """What a user writes as 3/32; raises StudyError for what is none."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]) <= 4000:
            raise StudyError(f"--shard {text}: write a part and how many there are, as in 3/32; the first is 1/32")
        return Shard(int(match[1]), int(match[2]), arms)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any] | None) -> "Shard | None":
        """What `to_json` gave; None for a whole study."""
        return None if data is None else Shard(**data)

    def split(self, study: Study) -> Literal["seeds", "cells", "searches"]:
        """What is split; raises StudyError where a study has not so many parts."""
        strategy = study.strategy
        if isinstance(study.seeds, Sequential):
            raise StudyError(
                f"--shard {self}: which seeds come next depends on the results of every arm; run the study whole, or list"
                " its seeds"
            )
        if isinstance(strategy, Search):
            if self.of > strategy.trials:
                raise StudyError(f"--shard {self}: {counted(strategy.trials, 'trial')} cannot be split into {self.of} parts")
            return "cells" if isinstance(strategy, Random) else "searches"
        if self.arms or (isinstance(strategy, Exhaustive) and len(study.seeds) == 1):
            return "cells"
        if self.of > len(study.seeds):
            seeds = counted(len(study.seeds), "seed")
            raise StudyError(
                f"--shard {self}: the design has {seeds}, and a seed's arms stay together to be compared, so use"
                f" {len(study.seeds)} shards at most, or --split-arms to split between arms too"
            )
        return "seeds"

    def seeds(self, study: Study) -> tuple[int, ...]:
        """The seeds of this part, where seeds are split."""
        return study.seeds[self.index - 1 :: self.of]

    def share(self, total: int) -> int:
        """How many of so many are this part's, when they are dealt in turn."""
        return len(range(self.index - 1, total, self.of))

    def words(self, study: Study) -> str:
        """What the part is: seeds 2 and 6 of 8."""
        how = self.split(study)
        if how == "seeds":
            own = self.seeds(study)
            named = ", ".join(map(str, own))
            return f"shard {self}: {'seed' if len(own) == 1 else 'seeds'} {named} of {len(study.seeds)}"
        if how == "cells":
            return f"shard {self}: one cell in {self.of}"
        assert isinstance(study.strategy, Search)
        trials = study.strategy.trials
        return f"shard {self}: a search of its own, {self.share(trials)} of {counted(trials, 'trial')}"


class Dealt:
    """One part's hand out of what a strategy proposes that looks at no results: every part counts all of it, each trial that
    is a network and within the constraints once, and takes its own."""

    def __init__(self, whole: "Proposer", shard: Shard, study: Study, cell: "Callable[[Proposal], str | None]") -> None:
        self._whole, self._shard, self._cell = whole, shard, cell
        self._seeds = set(shard.seeds(study)) if shard.split(study) == "seeds" else None
        self._limit = study.strategy.trials if isinstance(study.strategy, Search) else None
        self._dealt: set[str] = set()

    def propose(self) -> "Proposal | None":
        while self._limit is None or len(self._dealt) < self._limit:
            proposal = self._whole.propose()
            if proposal is None:
                return None
            cell, turn = self._cell(proposal), len(self._dealt)
            if cell is not None and cell not in self._dealt:
                self._dealt.add(cell)
                if self._is_own(proposal, turn):
                    return proposal
        return None

    def _is_own(self, proposal: "Proposal", turn: int) -> bool:
        return proposal.seed in self._seeds if self._seeds is not None else turn % self._shard.of == self._shard.index - 1

    def count(self) -> int:
        """How many there are from here on."""
        return sum(1 for _ in iter(self.propose, None))

    def adopt(self, params: Params, seed: int) -> "Proposal":
        return self._whole.adopt(params, seed)

    def told(self, proposal: "Proposal", values: Sequence[float] | None) -> None:
        self._whole.told(proposal, values)

    def remember(self, proposal: "Proposal", values: Sequence[float]) -> None:
        self._whole.remember(proposal, values)


def agreed(file: Path, mine: dict[str, Any]) -> dict[str, Any]:
    """What the first of a study's parts to begin has written into their file, be it this one; it is there whole or not at
    all, and nobody writes it again."""
    try:
        if not file.exists():
            draft = file.with_name(f".{uuid.uuid4().hex}")
            draft.write_text(json.dumps(mine))
            with contextlib.suppress(OSError):
                os.link(draft, file)  # of several at one instant, one does
            if not file.exists():  # a disk without links
                draft.replace(file)
            draft.unlink(missing_ok=True)
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError) as error:
        remedy = "the shards of a study agree there on what is `auto`; make its folder writable, or remove the file"
        raise StorageError(f"{file}: {one_line(error)}: {remedy}") from None
