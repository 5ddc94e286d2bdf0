"""Fine-tuning: the uppermost blocks of an encoder, together with a linear head.

The head is fitted to the frozen encoder first and tuning starts from there, so that its first steps do not undo what
pretraining put into the features (Kumar et al. 2022). A part of the groups is kept aside; the weights that predict it
best are kept, those of the start included. Everything random hangs on one seed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from filters.arrays import Float32, Float64, Int64
from filters.config.yaml_file import Section
from filters.errors import ModelError
from filters.model.encoder import OUTPUT, EncoderOptions, TunedFeatures, TunedWeights, batches, locate, tunable
from filters.model.kinds.heads import LinearHead, RidgeHead, fit_head
from filters.statistics.resampling import group_folds

HELD_OUT = 8
"""One in so many groups is kept aside for early stopping."""
MAX_STATE_BYTES = 4 * 2**30
"""States of the frozen lower blocks are computed once where they take no more memory than this."""
WARM_UP = 0.06
"""Share of the steps over which the learning rate rises."""
CLIP = 1.0
"""Largest norm of a step's gradient."""


class LastLayers(Section):
    """Training of all weights of the uppermost blocks, together with the head."""

    kind: Literal["last_layers"] = "last_layers"
    """Chooses this way of training."""
    lr: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (3e-5,)
    """Candidates for the learning rate; inner cross-validation chooses one."""
    layers: Annotated[int, Field(ge=1)] = 6
    """Number of blocks that are trained, counted down from the highest layer that is read."""
    epochs: Annotated[float, Field(gt=0, le=100)] = 3.0
    """Most epochs."""
    batch: Annotated[int, Field(ge=1, le=4096)] = 16
    """Texts in one step. They are computed in parts that fit into memory, and their gradients are added."""
    evaluations: Annotated[int, Field(ge=1, le=100)] = 2
    """How often in an epoch the pages that are kept aside are evaluated."""
    patience: Annotated[int, Field(ge=1)] = 3
    """Training stops after this many evaluations without a new best."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Weight decay of the optimiser (AdamW)."""
    head_lr: Annotated[float, Field(gt=0, le=1)] = 1e-5
    """Learning rate of the head, which starts from the head that fits the frozen model."""


class HeadOnly(Section):
    """Training of the head alone: the encoder stays as it is."""

    kind: Literal["head"] = "head"
    """Chooses this way of training."""


TuneConfig = Annotated[HeadOnly | LastLayers, Field(discriminator="kind")]


@dataclass(frozen=True)
class Tuned:
    """What tuning gave.

    Attributes:
        weights: what changed in the encoder.
        head: on the tuned encoder's features.
        epochs: after which the pages kept aside were predicted best; 0: at the start.
        error: (at the start, at the best) weighted mean squared error on the pages kept aside.
    """

    weights: TunedWeights
    head: LinearHead
    epochs: float
    error: tuple[float, float]


def fine_tune(
    config: LastLayers,
    lr: float,
    options: EncoderOptions,
    texts: Sequence[str],
    targets: Float64,
    weights: Float64,
    groups: Int64 | None,
    frozen: Float32,
    start: RidgeHead,
    random_state: int,
) -> Tuned:
    """Fine-tune an encoder to labels.

    Args:
        config: what to tune, and how long.
        lr: one of `config.lr`.
        options: the encoder and what is read from it.
        texts: n texts.
        targets: float64[n], the judge's scores.
        weights: float64[n], positive.
        groups: int64[n]; no group is both learnt from and kept aside. None: each text by itself.
        frozen: float32[n, columns], the features of the encoder as it is.
        start: the head to begin with, by its first penalty.
        random_state: seed of the split and the order of texts.

    Raises:
        ModelError: the encoder is none of torch's, or has fewer layers than are to be tuned.
        MissingExtraError: torch or transformers is not installed.
    """
    from filters.model.encoder_runtimes import TorchEncoder

    if locate(options.encoder).onnx is not None:
        raise ModelError(f"encoder {options.encoder}: an ONNX file cannot be tuned. Remedy: give safetensors or GGUF")
    encoder = TorchEncoder(options)
    encoder.model.to(encoder.torch.float32)  # weights stay in float32; products are computed in encoder.precision
    rng = np.random.default_rng(random_state)
    groups = np.arange(len(texts)) if groups is None else groups
    above = targets >= np.median(targets)
    learnt, aside = group_folds(groups, above, min(HELD_OUT, len(np.unique(groups))), random_state)[0]
    first = len(encoder.blocks) - config.layers
    if first < 0:
        raise ModelError(
            f"encoder {options.encoder}: {config.layers} layers are to be tuned, and {len(encoder.blocks)} are read. "
            "Remedy: lower classifier.tune.layers"
        )
    weights = weights / weights.mean()
    head = fit_head(start, start.l2[0], frozen[learnt], targets[learnt], weights[learnt], random_state)
    assert isinstance(head, LinearHead)
    trainer = _Trainer(encoder, config, first, head, frozen, rng)
    tokens = encoder.tokens(texts)
    trainer.remember(tokens)
    return trainer.run(lr, tokens, targets, weights, learnt, aside)


class _Trainer:
    """One tuning of one loaded encoder.

    Args:
        encoder: a `TorchEncoder` in float32.
        config: as in `tune`.
        first: number of the lowest block tuned.
        head: where the head starts.
        frozen: float32[n, columns], the features of the encoder as it is.
        rng: of everything random.
    """

    def __init__(
        self,
        encoder: Any,
        config: LastLayers,
        first: int,
        head: LinearHead,
        frozen: Float32,
        rng: np.random.Generator,
    ) -> None:
        torch = encoder.torch
        self.torch, self.encoder, self.config, self.first, self.rng = torch, encoder, config, first, rng
        self.frozen_head = head

        def tensor(array: npt.NDArray[Any]) -> Any:
            return torch.from_numpy(np.array(array, np.float32)).to(encoder.device)

        self.mean, self.scale = tensor(head.mean), tensor(head.scale)
        self.head = [tensor(head.weights).requires_grad_(), tensor(np.array([head.intercept])).requires_grad_()]
        self.features = TunedFeatures(first=first, shapes={"-": (1,)})
        self.parameters = tunable(encoder.blocks, first)
        for weight in self.parameters.values():
            weight.requires_grad_()
        self.lower: list[Any] | None = None
        self._tuples = self._gives_tuples()
        # Layers below the tuned blocks are not run again: their features stay as they are.
        self._below = [place for place, layer in enumerate(encoder.options.read) if OUTPUT < layer < first]
        self._frozen = frozen.reshape(len(frozen), len(encoder.options.read), -1)

    @contextlib.contextmanager
    def _skip(self, numbers: range, states: Any = None, seen: list[Any] | None = None) -> Iterator[None]:
        """Blocks that hand their input on, so that half a model can be run, whatever it passes besides.

        Args:
            numbers: of the blocks.
            states: what the last of them hands on instead.
            seen: gets the input of the first of them.
        """

        def passing(number: int) -> Callable[..., Any]:
            def forward(hidden: Any, *others: Any, **more: Any) -> Any:
                if seen is not None and number == numbers.start:
                    seen.append(hidden)
                out = states if states is not None and number == numbers.stop - 1 else hidden
                return (out,) if self._tuples else out

            return forward

        for number in numbers:
            self.encoder.blocks[number].forward = passing(number)
        try:
            yield
        finally:
            for number in numbers:
                del self.encoder.blocks[number].forward

    def _autocast(self) -> Any:
        dtype = getattr(self.torch, self.encoder.precision)
        half = dtype is not self.torch.float32
        return self.torch.autocast(self.encoder.device.split(":")[0], dtype=dtype if half else None, enabled=half)

    def remember(self, tokens: Sequence[Sequence[int]]) -> None:
        """Compute the states that go into the lowest tuned block, where memory allows and there are blocks below."""
        torch, encoder = self.torch, self.encoder
        whole = [encoder.surround(ids) for ids in tokens]
        if self.first == 0 or sum(map(len, whole)) * encoder.width * 2 > MAX_STATE_BYTES:
            return
        dtype = torch.float32 if encoder.precision == "float32" else getattr(torch, encoder.precision)
        lower: list[Any] = [None] * len(whole)
        for rows in batches([len(ids) for ids in whole]):
            seen: list[Any] = []
            with torch.no_grad(), self._autocast(), self._skip(range(self.first, len(encoder.blocks)), seen=seen):
                encoder.states([whole[row] for row in rows])
            for place, row in enumerate(rows):
                lower[row] = seen[0][place, : len(whole[row])].to(dtype).cpu().clone()
        self.lower = lower

    def _gives_tuples(self) -> bool:
        """Whether the encoder's blocks return tuples."""
        found = []
        hook = self.encoder.blocks[0].register_forward_hook(lambda module, given, out: found.append(out))
        with self.torch.no_grad():
            self.encoder.states([self.encoder.surround([7])])
        hook.remove()
        return isinstance(found[0], tuple)

    def _predict(self, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> Any:
        """Scores of one batch, float32[n] of torch."""
        torch, encoder = self.torch, self.encoder
        batch = [tokens[row] for row in rows]
        with self._autocast():
            if self.lower is None:
                features = encoder.pooled(batch)
            else:
                states = torch.nn.utils.rnn.pad_sequence([self.lower[row] for row in rows], batch_first=True)
                with self._skip(range(self.first), states.to(encoder.device).float()):
                    features = encoder.pooled(batch)
                if self._below:
                    parts = list(features.view(len(rows), len(encoder.options.read), -1).unbind(1))
                    for place in self._below:
                        parts[place] = torch.from_numpy(self._frozen[list(rows), place]).to(encoder.device)
                    features = torch.cat(parts, dim=1)
        z = (features.float() - self.mean) / self.scale
        return z @ self.head[0] + self.head[1]

    def _scores(self, rows: Int64, tokens: Sequence[Sequence[int]]) -> Float64:
        scores = np.zeros(len(rows))
        with self.torch.no_grad():
            for places in batches([len(tokens[row]) for row in rows.tolist()]):
                found = self._predict(rows[places].tolist(), tokens)
                scores[places] = found.cpu().numpy()
        return scores

    def run(
        self,
        lr: float,
        tokens: Sequence[Sequence[int]],
        targets: Float64,
        weights: Float64,
        learnt: Int64,
        aside: Int64,
    ) -> Tuned:
        """Train on the rows `learnt`, stop by the rows `aside`."""
        torch, config, device = self.torch, self.config, self.encoder.device
        decayed = [weight for weight in self.parameters.values() if weight.ndim > 1]
        others = [weight for weight in self.parameters.values() if weight.ndim <= 1]
        optimiser = torch.optim.AdamW(
            [
                {"params": decayed, "lr": lr, "weight_decay": config.weight_decay},
                {"params": others, "lr": lr, "weight_decay": 0.0},
                {"params": self.head, "lr": config.head_lr, "weight_decay": 0.0},
            ]
        )
        trained = [*decayed, *others, *self.head]
        scaler = torch.amp.GradScaler(device.split(":")[0], enabled=self.encoder.precision == "float16")
        steps_of_epoch = math.ceil(len(learnt) / config.batch)
        total = max(1, round(config.epochs * steps_of_epoch))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate((step + 1) / total))
        looks = {round(part * steps_of_epoch / config.evaluations) for part in range(1, 10**4)} | {total}

        def error() -> float:
            gaps = self._scores(aside, tokens) - targets[aside]
            return float(np.average(gaps**2, weights=weights[aside]))

        begin = best = error()
        kept, best_step, misses = self._copy(), 0, 0
        y = torch.from_numpy(targets.astype(np.float32)).to(device)
        w = torch.from_numpy(weights.astype(np.float32)).to(device)
        for step, rows in enumerate(self._steps(learnt, total), 1):
            optimiser.zero_grad(set_to_none=True)
            share = float(weights[rows].sum())
            for places in batches([len(tokens[row]) for row in rows.tolist()]):
                part = rows[places]
                gaps = self._predict(part.tolist(), tokens) - y[part]
                loss = (w[part] * gaps**2).sum() / share
                scaler.scale(loss).backward()
            scaler.unscale_(optimiser)
            torch.nn.utils.clip_grad_norm_(trained, CLIP)
            before = scaler.get_scale()
            scaler.step(optimiser)
            scaler.update()
            if scaler.get_scale() >= before:  # else the gradient overflowed, and the step was left out
                schedule.step()
            if step not in looks:
                continue
            now = error()
            if now < best:
                best, kept, best_step, misses = now, self._copy(), step, 0
            else:
                misses += 1
            if misses >= config.patience:
                break
        arrays, (direction, intercept) = kept
        features = self.features.model_copy(update={"shapes": {name: array.shape for name, array in arrays.items()}})
        head = LinearHead(self.frozen_head.mean, self.frozen_head.scale, direction, float(intercept[0]))
        return Tuned(TunedWeights(features, arrays), head, best_step / steps_of_epoch, (begin, best))

    def _steps(self, learnt: Int64, total: int) -> Iterator[Int64]:
        left = total
        while left:
            order = self.rng.permutation(learnt)
            for begin in range(0, len(order), self.config.batch):
                if not left:
                    return
                yield order[begin : begin + self.config.batch]
                left -= 1

    def _copy(self) -> tuple[dict[str, npt.NDArray[Any]], list[Float32]]:
        """The weights as they are held in a model folder, and the head."""
        arrays = {name: weight.detach().cpu().numpy().astype(np.float16) for name, weight in self.parameters.items()}
        return arrays, [part.detach().cpu().numpy().copy() for part in self.head]


def _rate(progress: float) -> float:
    """Factor of the learning rate: up over the first `WARM_UP`, then down along a cosine to a tenth."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP))))
