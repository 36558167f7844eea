"""Active Mixup: a student from a black-box teacher, a few real images and few queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kdal_core.distillation.coarse_to_fine import Precision
from kdal_core.distillation.learning import Learn
from kdal_core.distillation.ledger import QueryLedger
from kdal_core.distillation.pairs import DEFAULT_LAMBDAS, Mode, PairPool, mix_images, pool_of_images
from kdal_core.distillation.selection import MEMORY, MixupSelection, random_pairs, select_pairs
from kdal_core.distillation.stages import (
    Distilled,
    Proposal,
    Stage,
    StageConfig,
    as_ledger,
    asked_pairs,
    distil_in_stages,
)
from kdal_core.distillation.teacher import Teacher
from kdal_core.models import Network
from kdal_core.validation import InvalidInput


@dataclass(frozen=True)
class MixupConfig:
    """Which mixes to ask about, over how many stages, and how to train.

    Attributes:
        training: stages, training of the students, seed.
        selectivity: share of the pairs looked at in a stage that is turned down, those of which the student is surest;
            in [0, 1]. 1, as published: every pair is looked at, and the least sure of all are taken. The default, a
            fifth of pairs drawn at random, asks about fewer mixes that nobody can tell, and costs a forward for few
            pairs in place of millions (docs/results/mixup.md). With `max_uses` it counts as 1: images that
            are used up need many pairs to choose from.
        candidates: pairs looked at in a stage at most; None: as `selectivity` says.
        lambdas, mode, exact, memory, max_uses, random_share, precision: see `select_pairs`.
        mixed_colours: whether grey and colour images may be mixed.
    """

    training: StageConfig = field(default_factory=StageConfig)
    lambdas: tuple[float, ...] = DEFAULT_LAMBDAS
    mode: Mode = "all"
    exact: bool | None = None
    memory: int = MEMORY
    max_uses: int | None = None
    random_share: float = 0.0
    selectivity: float = 0.2
    candidates: int | None = None
    precision: Precision = "float32"
    mixed_colours: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, before anything is asked."""
        if not 0 <= self.selectivity <= 1:
            raise InvalidInput(f"selectivity must lie in [0, 1], not {self.selectivity!r}.")

    def looked_at(self, k: int) -> int | None:
        """Pairs that a stage looks at to choose k; None: all.

        >>> MixupConfig().looked_at(8_000), MixupConfig(selectivity=1).looked_at(8_000)
        (10000, None)
        """
        if self.max_uses is not None or self.selectivity == 1:
            return self.candidates
        drawn = max(k, round(k / (1 - self.selectivity)))
        return drawn if self.candidates is None else min(drawn, self.candidates)


def active_mixup(
    teacher: Teacher,
    images: Tensor | Sequence[Tensor],
    student: str,
    ledger: QueryLedger | int,
    config: MixupConfig | None = None,
    *,
    earlier: MixupSelection | None = None,
    replay: Sequence[MixupSelection] = (),
    learn: Learn | None = None,
    on_stage: Callable[[Stage, Network], None] | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Distilled:
    """Distil a black-box teacher into a student with mixes of pairs that the student is least sure of.

    Stage 0: ask about the real images, train. Then per stage: C2 of pairs by the last student, ask about the
    lowest, each at its own lambda, merge, train a new student from scratch on soft labels. A pair is mixed at most
    once in a run.

    Args:
        teacher: whom to ask; `teacher.classes` names the student's classes.
        images: unlabelled, uint8 (N, 3, H, W), or a sequence of (C, H, W) with C 1 or 3. They need not come from the
            teacher's domain.
        student: architecture: a name that `build_model` knows ("lenet5", "small_cnn", "resnet18").
        ledger: budget and memory of the answers; or a budget in images, real ones included.
        config: None: ten stages, `MixupConfig`'s choice and `StageConfig`'s training.
        earlier: mixes of these images that runs before this one asked about: learnt from the first stage on, and not
            chosen again. For going on when images or budget have been added.
        replay: selections of an earlier run's stages, to go on after them; the ledger must know their answers.
        learn: how a stage's student comes to be; None: trained from scratch.
        on_stage: called after each training with the stage and its student, for reports and for `replay`.
        progress: called with what is being done ("ask", "train", "select") and the share of it that is done.

    Returns:
        The student, its spec, the ledger and the history.

    Raises:
        InvalidInput: fewer than two images, sizes or colours that do not fit: before any query.
        BudgetExceeded: a budget below the number of real images: before any query.
        ConfigError: a student that cannot be built for these images: before any query.
        TeacherError: no usable answer; the ledger keeps those that came before it.

    Source: Active Mixup paper (CVPR 2020), algorithm 1; methods.md, section 3.
    """
    config = config or MixupConfig()
    pool = pool_of_images(images, mixed_colours=config.mixed_colours)
    choose = partial(_lowest, pool, config)
    return _mixed_in_stages(teacher, pool, student, ledger, config, choose, earlier, replay, learn, on_stage, progress)


def random_search(
    teacher: Teacher,
    images: Tensor | Sequence[Tensor],
    student: str,
    ledger: QueryLedger | int,
    config: MixupConfig | None = None,
    *,
    replay: Sequence[MixupSelection] = (),
    learn: Learn | None = None,
    on_stage: Callable[[Stage, Network], None] | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Distilled:
    """The paper's random search: the same stages with pairs at random, all at lambda = 1/2."""
    config = config or MixupConfig()
    pool = pool_of_images(images, mixed_colours=config.mixed_colours)
    choose = partial(_any, pool, config)
    return _mixed_in_stages(teacher, pool, student, ledger, config, choose, None, replay, learn, on_stage, progress)


Choose = Callable[[Network, int, NDArray[np.int64], int], MixupSelection]
"""(student, k, pairs that were mixed already (m, 2), number of the stage) -> the next mixes."""


def _mixed_in_stages(
    teacher: Teacher,
    pool: Tensor,
    architecture: str,
    ledger: QueryLedger | int,
    config: MixupConfig,
    choose: Choose,
    earlier: MixupSelection | None,
    replay: Sequence[MixupSelection],
    learn: Learn | None,
    on_stage: Callable[[Stage, Network], None] | None,
    progress: Callable[[str, float], None] | None,
) -> Distilled:
    before = np.empty((0, 2), np.int64) if earlier is None else earlier.pairs

    def propose(student: Network | None, k: int, history: Sequence[Stage]) -> Proposal:
        if len(history) <= len(replay):
            selection = replay[len(history) - 1]
            if len(selection) > k:
                raise InvalidInput(f"replay has {len(selection)} mixes for stage {len(history)}, the plan {k}.")
        else:
            assert student is not None  # one is trained after the last replayed stage
            mixed = np.concatenate([before, asked_pairs(history)])
            selection = choose(student, k, mixed, len(history))
        return Proposal(mix_images(pool, selection.pairs, selection.lambdas), selection)

    return distil_in_stages(
        teacher,
        pool,
        architecture,
        as_ledger(ledger),
        propose,
        config.training,
        earlier=None if earlier is None else mix_images(pool, earlier.pairs, earlier.lambdas),
        most=len(PairPool(len(pool), config.mode)) - len(before),
        replayed=len(replay),
        learn=learn,
        on_stage=on_stage,
        progress=progress,
    )


def _lowest(
    pool: Tensor, config: MixupConfig, model: Network, k: int, mixed: NDArray[np.int64], stage: int
) -> MixupSelection:
    return select_pairs(
        model,
        pool,
        k,
        config.lambdas,
        mixed,
        exact=config.exact,
        memory=config.memory,
        mode=config.mode,
        max_uses=config.max_uses,
        random_share=config.random_share,
        candidates=config.looked_at(k),
        seed=config.training.seed * 10_007 + stage,
        precision=config.precision,
    )


def _any(
    pool: Tensor, config: MixupConfig, model: Network, k: int, mixed: NDArray[np.int64], stage: int
) -> MixupSelection:
    seed = int(np.random.SeedSequence([config.training.seed, stage]).generate_state(1)[0])
    return random_pairs(len(pool), k, excluded=mixed, mode=config.mode, seed=seed)
