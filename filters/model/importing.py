"""Make a model folder of a classifier that somebody else trained."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from filters.cards import make_card
from filters.errors import ModelError
from filters.model.folder import KeepRule, Manifest, check_free
from filters.model.quality import QualityModel


def import_model(
    source: str,
    output: str | Path,
    *,
    keep: KeepRule | None = None,
    name: str | None = None,
    language: str | None = None,
    window: int | None = None,
    overwrite: bool = False,
) -> QualityModel:
    """Copy a classifier into a model folder of its own, with a keep rule.

    Args:
        source: a folder of a transformers sequence classifier with one output, safetensors only, such as a download of
            HuggingFaceFW/fineweb-edu-classifier (extra `encoder`); or a fastText file.bin#__label__NAME.
        output: the model folder to write.
        keep: None: for the former `KeepRule(rounded=3)`, for the latter a probability of at least a half.
        name: None: that of the source.
        language: of the texts the classifier is for.
        window: characters of a text that are read; None: all (a sequence classifier cuts to its own tokens).
        overwrite: replace a model that is there.

    Returns:
        The model as it was written.

    Raises:
        ModelError: it cannot be loaded, is a model folder already, or the output folder is taken.
        MissingExtraError: torch or transformers is not installed.
    """
    check_free(Path(output), overwrite)
    model = QualityModel.load(source)
    if model.metadata.files:
        raise ModelError(f"{source}: a model folder already. Remedy: use it, or copy it")
    given = {"keep": keep, "name": name, "language": language, "window": window}
    try:
        metadata = Manifest.model_validate(
            model.metadata.model_dump() | {key: value for key, value in given.items() if value is not None}
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}. Remedy: give another value") from error
    card = make_card(
        f"# {metadata.name}",
        f"Imported from `{Path(source).name}`; finesieve did not train it and has not measured it:\n"
        "`finesieve evaluate` on labels of your own does.",
        "## Keep rule",
        f"Keep a page when {metadata.keep}. Scores are the classifier's own, without calibration.",
    )
    return QualityModel(model.scorer, model.calibration, metadata, "").save(output, card=card, overwrite=overwrite)
