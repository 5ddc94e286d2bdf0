"""The phases, in the order in which they depend on each other."""

from __future__ import annotations

from filters.dedup.clusters import RESOLVE_PHASES
from filters.dedup.losses import Counts, Losses
from filters.errors import RunError
from filters.phases.phase import Phase
from filters.run.attributes import Attributes
from filters.run.selection import SELECT_PHASES
from filters.run.shard import Shard

PHASES: tuple[Phase, ...] = (Attributes(), *RESOLVE_PHASES, Counts(), Losses(), *SELECT_PHASES, Shard())
"""Each may start when all units of those before it are done. They keep models and kernels loaded from unit to unit."""


def phase_named(name: str) -> Phase:
    """A phase by its name.

    Raises:
        RunError: there is none of that name.
    """
    for phase in PHASES:
        if phase.name == name:
            return phase
    raise RunError(f"no phase {name!r}; a run has {', '.join(phase.name for phase in PHASES)}")
