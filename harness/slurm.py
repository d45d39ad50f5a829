"""The array job of a study for Slurm: a shard a task, checkpointed and queued again before its time is up, then merged."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from string import Template

from harness.errors import HarnessError

LEAD = 300
"""Seconds before its end at which a task is told (USR1), in jobs that are long enough."""
REQUEUES = 200
"""Times a task is queued again at most, so that nothing goes in a circle for ever."""
TROUBLES = 3
"""Times at most where something has to be mended first: a store that is away comes back, a full disk may not."""
QUIET = "# shellcheck disable=SC1090,SC1091"
TEMPLATE = Template(
    """#!/bin/bash
# $study in $tasks parts, each with a database of its own under shards/.
#
#   job=$$(sbatch --parsable job.sh)
#
# Merge whenever you like, also while it runs; or when all of it has ended:
#
#   $merge
#   sbatch --dependency=afterany:$$job --time=00:30:00 $merging
#
$settled$directives

cd "$${SLURM_SUBMIT_DIR:-.}" || exit 2
${environment}set -u

$run --shard "$$SLURM_ARRAY_TASK_ID/$tasks" --for ${limit}s &
harness=$$! ending='' again=1
# $lead seconds before the end: finish nothing more, keep what there is
trap 'ending=time again=1; kill -USR1 "$$harness"' USR1
# scancel; or preempted, in which case Slurm itself queues the task again
trap 'ending=cancelled again=1; kill -TERM "$$harness"' TERM

while [ -n "$$again" ]; do # a signal ends `wait`, not what it waits for
    again=''
    wait "$$harness"
    code=$$?
done

case "$$code" in
130 | 143) most=$requeues ;; # there is more to do
75) most=$troubles ;; # there is, once what was said is mended
*) most=0 ;;
esac
if [ "$$ending" != cancelled ] && [ "$${SLURM_RESTART_COUNT:-0}" -lt "$$most" ]; then
    scontrol requeue "$${SLURM_ARRAY_JOB_ID}_$${SLURM_ARRAY_TASK_ID}" && exit 0
fi
exit "$$code"
"""
)


@dataclass(frozen=True)
class Job:
    """What the job is to be; None leaves it to the cluster."""

    study: str
    """The study's name."""
    target: str
    """Its file, as `harness run` is given it."""
    tasks: int
    """Shards, of which each has the GPUs of one trial, or one."""
    seconds: float
    """Of a task, until it is queued again."""
    cpus: int = 4
    gpus: int = 1
    """Of a task; 0 for a partition without any."""
    memory: str | None = None
    partition: str | None = None
    account: str | None = None
    environment: str | None = None
    """A line of shell that makes `harness` known."""
    target_database: str = "all.db"
    options: tuple[str, ...] = ()
    """Further options of `harness run`."""
    settled: str = ""
    """What is said of settings that the first shard settles for all."""

    @property
    def lead(self) -> int:
        """Seconds before the end at which a task begins to leave."""
        return int(min(LEAD, self.seconds / 4))


def script(job: Job) -> str:
    """The whole of job.sh."""
    if job.seconds < 60:
        raise HarnessError(f"--time {job.seconds:g}s: a task needs a minute at least")
    limit = max(int(job.seconds - job.lead), 30)
    merge = f"harness copy {shlex.quote(f'shards/{job.study}.')}*-of-{job.tasks}.db {shlex.quote(job.target_database)}"
    return TEMPLATE.substitute(
        study=job.study,
        tasks=job.tasks,
        merge=merge,
        merging=_merging(job, merge),
        settled=f"# {job.settled}\n#\n" if job.settled else "",
        directives="\n".join(_directives(job)),
        environment=f"{QUIET}\n{job.environment} || exit 2\n" if job.environment else "",
        run=shlex.join(["harness", "run", job.target, *job.options]),
        limit=limit,
        lead=job.lead,
        requeues=REQUEUES,
        troubles=TROUBLES,
    )


def _merging(job: Job, merge: str) -> str:
    """What `sbatch` is told of the merge: what it wraps is run by sh, and the line of the environment is bash's."""
    queues = [f"--{name}={shlex.quote(value)} " for name, value in _queues(job) if value is not None]
    wrapped = shlex.join(["bash", "-c", f"{job.environment} && {merge}"]) if job.environment else merge
    plain = "'" in wrapped and not any(sign in wrapped for sign in '"$`\\!')  # easier to read
    return "".join(queues) + "--wrap=" + (f'"{wrapped}"' if plain else shlex.quote(wrapped))


def _queues(job: Job) -> tuple[tuple[str, str | None], ...]:
    return ("partition", job.partition), ("account", job.account)


def _directives(job: Job) -> list[str]:
    asked: Sequence[tuple[str, object]] = (
        ("job-name", shlex.quote(job.study)),
        ("array", f"1-{job.tasks}"),
        ("nodes", 1),
        ("ntasks", 1),
        ("cpus-per-task", job.cpus),
        ("gres", f"gpu:{job.gpus}" if job.gpus else None),
        ("mem", job.memory),
        *_queues(job),
        ("time", clock(job.seconds)),
        ("signal", f"B:USR1@{job.lead}"),
        ("output", "slurm-%x-%a.log"),
    )
    plain = ["requeue", "open-mode=append"]
    return [f"#SBATCH --{line}" for line in [*(f"{name}={value}" for name, value in asked if value is not None), *plain]]


def clock(seconds: float) -> str:
    """A time as Slurm writes it: 1-12:00:00."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days}-{hour:02}:{minute:02}:{second:02}" if days else f"{hour:02}:{minute:02}:{second:02}"
