"""A rubric: what a judge is asked, as a file with a version and a digest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from filters.config.yaml_file import Section, load_config

Label = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z ]{0,39}$")]


class Scale(Section):
    """Whole numbers from `min` to `max`."""

    min: Annotated[int, Field(ge=0, le=100)] = 0
    """Lowest score."""
    max: Annotated[int, Field(ge=1, le=100)]
    """Highest score."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min >= self.max:
            raise ValueError(f"scale.min {self.min} is not below scale.max {self.max}")
        return self

    @property
    def values(self) -> range:
        """All scores, ascending."""
        return range(self.min, self.max + 1)


class Attribute(Section):
    """One of several things that are scored separately."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z_]{0,39}$")]
    """Name of the attribute."""
    weight: float = 1.0
    """Weight in the page's score, which is the weighted mean of its attributes. A negative weight counts against it."""


class Example(Section):
    """A page with its right answer, shown to the judge as a finished exchange."""

    text: Annotated[str, Field(min_length=1)]
    """Text of the page."""
    reason: Annotated[str, Field(min_length=1)]
    """Reasoning, shown only in mode justify."""
    score: int | None = None
    """The right score, for a rubric without attributes."""
    scores: dict[str, int] | None = None
    """The right score of each attribute, for a rubric with attributes."""


class Rubric(Section):
    """What a judge is asked about a page.

    Attributes:
        name: Name, for people and file names.
        version: Version; raise it whenever the meaning of the scores changes.
        scale: The scores that a page can have.
        label: Words before the score in an answer, as in "Educational score: 3".
        prompt: The criteria, which the judge gets as the system message.
        attributes: What is scored separately. Empty: one score.
        examples: Pages with their right answers, in the order in which they are shown.
        request: What the page answers: the user's turn before the page, in mode reward. null: none.
        language: Language of the pages, by its English name. null: the judge is not told.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z.-]{1,20}$")]
    scale: Scale
    label: Label
    prompt: Annotated[str, Field(min_length=20)]
    attributes: tuple[Attribute, ...] = ()
    examples: tuple[Example, ...] = ()
    request: Annotated[str, Field(min_length=1)] | None = None
    language: str | None = None

    @classmethod
    def load(cls, path: str | Path, language: str | None = None) -> Self:
        """Read a rubric file.

        Args:
            path: a YAML file.
            language: of the pages, in English ("Danish"); takes the place of the file's.

        Raises:
            ConfigError: names the file, the line where it is known, the key, and what is allowed.
        """
        rubric = load_config(cls, path)
        return rubric if language is None else rubric.model_copy(update={"language": language})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [attribute.name for attribute in self.attributes]
        if len(set(names)) != len(names):
            raise ValueError("attributes: two have the same name")
        if names and not any(attribute.weight for attribute in self.attributes):
            raise ValueError("attributes: at least one needs a weight other than 0")
        for number, example in enumerate(self.examples):
            given = example.scores if names else example.score is not None and {self.label: example.score}
            if not given or sorted(given) != sorted(names or [self.label]):
                wanted = f"`scores` with {', '.join(names)}" if names else "`score`"
                raise ValueError(f"examples.{number}: give {wanted}")
            for score in given.values():
                if score not in self.scale.values:
                    raise ValueError(
                        f"examples.{number}: {score} is not on the scale {self.scale.min}-{self.scale.max}"
                    )
        return self

    @property
    def digest(self) -> str:
        """sha256 hex of everything a judge sees of it; answers are stored under it."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()

    def combine(self, attributes: dict[str, float]) -> float:
        """The page's score from its attributes' scores: their weighted mean, within the scale."""
        weights = {attribute.name: attribute.weight for attribute in self.attributes}
        spread = self.scale.max - self.scale.min
        total = sum(abs(weight) for weight in weights.values())
        points = 0.0
        for name, weight in weights.items():
            share = (attributes[name] - self.scale.min) / spread
            points += abs(weight) * (share if weight >= 0 else 1 - share)
        return self.scale.min + spread * min(max(points / total, 0.0), 1.0)
