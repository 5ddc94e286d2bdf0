"""The interface that a run reports its progress to."""

from __future__ import annotations

from filters.run.plan import Plan


class Observer:
    """Told what a run does as it does it; does nothing by itself. Subclass what you want to hear of."""

    def planned(self, plan: Plan) -> None:
        """The inputs are found and the model is loaded; the work begins."""

    def notice(self, text: str) -> None:
        """Something a user should know: what a killed run left behind, what is resumed, what was set aside."""

    def phase(self, name: str, done: int, units: int) -> None:
        """So many units of a phase are done; called at its begin and after each unit."""

    def read(self, records: int, input_bytes: int) -> None:
        """So many more records of the input, and stored bytes, have been read and scored."""
