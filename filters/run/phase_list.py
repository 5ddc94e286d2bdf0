"""The phases, in the order in which they depend on each other."""

from __future__ import annotations

from filters.dedup.clusters import RESOLVE_PHASES
from filters.dedup.losses import Counts, Losses
from filters.errors import RunError
from filters.phases.phase import Job, Phase
from filters.run.adopt import AddedScores, AdoptedAttributes, AdoptedVerdicts
from filters.run.attributes import Attributes
from filters.run.joined_scores import JoinedScores
from filters.run.selection import SELECT_PHASES
from filters.run.shard import Shard

PHASES: tuple[Phase, ...] = (Attributes(), *RESOLVE_PHASES, Counts(), Losses(), *SELECT_PHASES, Shard())
"""Each may start when all units of those before it are done. They keep models and kernels loaded from unit to unit."""
ANEW: tuple[Phase, ...] = (AdoptedAttributes(), AdoptedVerdicts(), *SELECT_PHASES, Shard())
"""Those of a run that decides anew about the documents of a finished one."""


def phases_of(job: Job) -> tuple[Phase, ...]:
    """The phases that a job has."""
    if job.run is None:
        return PHASES
    return (*ANEW[:2], JoinedScores() if job.joined else AddedScores(), *ANEW[2:]) if job.added else ANEW


def phase_named(name: str, job: Job | None = None) -> Phase:
    """A phase by its name; of a job, or else of a run that reads its input.

    Raises:
        RunError: there is none of that name.
    """
    phases = PHASES if job is None else phases_of(job)
    for phase in phases:
        if phase.name == name:
            return phase
    raise RunError(f"no phase {name!r}; a run has {', '.join(phase.name for phase in phases)}")
