"""The trio S, T and S-KD as linear heads on frozen features, for classes of images.

S learns from the labels. T hears two voices: the labels spread over a graph of nearest neighbours, and a head of its
own, which then learns from what both say together. S-KD is a head on the student's features that learns from the
labels and from T's word on every image of the pool, labelled or not.

Sources: Zhou et al., Learning with local and global consistency, 2003 (spreading); Hinton et al., Distilling the
knowledge in a neural network, 2015; Xie et al., Unsupervised data augmentation, 2020 (sharpened targets).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.training.head import Head, JoinedHead
from kdal_core.training.head_config import HeadConfig
from kdal_core.training.label_spreading import neighbor_graph, spread
from kdal_core.training.logistic import Floats, best_decay, fit_logistic, linear, softmax, stratified_folds
from kdal_core.training.projection import BLOCK, Projection, joined, normalised, principal_components
from kdal_core.training.teaching import lessons
from kdal_core.validation import InvalidInput, as_count

TAUGHT = 10_000  # images that a head learns T's word from, at most: more make it no better, only slower
SEARCHED = 64  # components of each kind by which neighbours are found
JUDGED = 300  # labels from which on S-KD has to be as often right as S about those left out, or hears less of T
JUDGES = 3  # folds that decide this
DEAF = 0.95  # what the labels then weigh; a little of T's word is left, so that S-KD is not S once more
FAINT = 1e-4  # the least probability that spreading can say; a class unheard of is not thereby impossible


@dataclass(frozen=True)
class HeadTrio:
    """S, S-KD and T.

    Attributes:
        student: S.
        distilled: S-KD.
        teacher: (N, C) float32, T's word on every image of the pool. It knows the labels of those that have one.
        teacher_head: T for images outside the pool.
        label_share: of the labels in what S-KD learnt; the rest is T's word on every image.
    """

    student: Head
    distilled: Head
    teacher: NDArray[np.float32]
    teacher_head: JoinedHead
    label_share: float


def fit_heads(
    student: NDArray[Any],
    teacher: Sequence[NDArray[Any]],
    labelled: ArrayLike,
    targets: ArrayLike,
    classes: int,
    *,
    seed: int = 0,
    config: HeadConfig | None = None,
) -> HeadTrio:
    """The trio of heads; see `HeadPool`, which this makes and asks once."""
    return HeadPool(student, teacher, seed=seed, config=config).fit(labelled, targets, classes)


def out_of_fold(
    student: NDArray[Any],
    teacher: Sequence[NDArray[Any]],
    labelled: ArrayLike,
    targets: ArrayLike,
    classes: int,
    *,
    folds: int = 5,
    seed: int = 0,
    config: HeadConfig | None = None,
) -> NDArray[np.float32]:
    """What S-KD says of each labelled image when it, and T, have not seen its label; see `HeadPool.out_of_fold`."""
    return HeadPool(student, teacher, seed=seed, config=config).out_of_fold(labelled, targets, classes, folds=folds)


class HeadPool:
    """Images whose features are known, ready to be asked with any labels.

    Args:
        student: (N, D) raw features of the student's backbone, float16, float32 or float64.
        teacher: (N, E_i) raw features, at least one kind of them, of the same images in the same order.
        seed: of the components' search and the folds.
        config: how.

    The same images give the same bits in whatever order they come, as long as no two are alike in every feature.

    Raises:
        InvalidInput: shapes that do not fit, or features that are not finite.
    """

    def __init__(
        self,
        student: NDArray[Any],
        teacher: Sequence[NDArray[Any]],
        *,
        seed: int = 0,
        config: HeadConfig | None = None,
    ) -> None:
        self._config = config = config or HeadConfig()
        self._seed = seed
        _check_features(student, teacher)
        self._order = _order([student, *teacher])
        self._place = np.empty_like(self._order)
        self._place[self._order] = np.arange(len(self._order))
        generator = np.random.default_rng(seed)
        self._student_part = principal_components(student, self._order, config.student_components, generator)
        self._student = self._student_part.components(student, self._order)
        self._parts = tuple(self._part(features, student, generator) for features in teacher)
        self._joined = joined(self._parts, teacher, self._order)
        self._graph = neighbor_graph(self._leading(), config.neighbors)

    def fit(self, labelled: ArrayLike, targets: ArrayLike, classes: int) -> HeadTrio:
        """S, T and S-KD of these labels.

        Args:
            labelled: (L,) positions in the pool of the images that have a label, each once, L >= 1.
            targets: (L,) their class numbers, in [0, classes).
            classes: C.

        From 300 labels on, where S-KD would be less often right than S about labels that are left out, it learns nearly
        all it does from the labels: a teacher that knows no more than its student is not worth hearing.

        Raises:
            InvalidInput: positions or classes out of range, or a position given twice.
        """
        rows, wanted = self._labels(labelled, targets, classes)
        config = self._config
        word = self._word(rows, wanted, classes, config.rounds)
        folds = stratified_folds(wanted, min(config.folds, len(rows)), np.random.default_rng(self._seed))
        decay, left_out = best_decay(self._student[rows], wanted, folds, classes, config.decays)
        labels = np.eye(classes, dtype=np.float32)[wanted]
        student = fit_logistic(self._student[rows], labels, np.ones(len(rows)), decay, steps=300)
        share = self._label_share(wanted)
        if len(rows) < JUDGED or self._worth_hearing(rows, wanted, folds, left_out):
            distilled = self._from_word(self._student, word, rows, wanted)
        else:
            share = DEAF
            distilled = self._from_word(self._student, word, rows, wanted, label_weight=DEAF, decay=decay)
        head = JoinedHead(self._parts, self._from_word(self._joined, word, rows, wanted))
        return HeadTrio(self._folded(student), self._folded(distilled), word[self._place], head, share)

    def out_of_fold(
        self, labelled: ArrayLike, targets: ArrayLike, classes: int, *, folds: int = 5
    ) -> NDArray[np.float32]:
        """(L, C) probabilities of S-KD for each labelled image, by heads that were fitted without its label.

        Args:
            labelled, targets, classes: as in `fit`; L >= 2.
            folds: how many such fits, at least 2; with fewer labels, as many as these. Each class is spread over the
                folds as evenly as it goes.

        Raises:
            InvalidInput: as `fit`; less than 2 labels or folds.
        """
        rows, wanted = self._labels(labelled, targets, classes)
        if len(rows) < 2:
            raise InvalidInput("At least 2 labels are needed to leave some out.")
        folds = min(as_count("folds", folds, low=2, high=2**31), len(rows))
        part = stratified_folds(wanted, folds, np.random.default_rng(self._seed))
        result = np.empty((len(rows), classes), dtype=np.float32)
        for fold in range(folds):
            out = part == fold
            result[out] = self._distilled_of(rows, wanted, classes, out, self._config.rounds)
        asked = self._place[np.asarray(labelled, dtype=np.int64)]
        return result[np.searchsorted(rows, asked)]

    def _labels(
        self, labelled: ArrayLike, targets: ArrayLike, classes: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The labelled rows in the pool's own order, ascending, and their classes."""
        as_count("classes", classes, low=1, high=2**31)
        positions, wanted = _whole("labelled", labelled), _whole("targets", targets)
        if len(positions) != len(wanted):
            raise InvalidInput(f"There are {len(positions)} labelled positions but {len(wanted)} targets.")
        if not len(positions):
            raise InvalidInput("At least one label is needed to fit heads.")
        size = len(self._order)
        if positions.min() < 0 or positions.max() >= size:
            raise InvalidInput(f"labelled must hold positions from 0 to {size - 1}.")
        if wanted.min() < 0 or wanted.max() >= classes:
            raise InvalidInput(f"targets must hold class numbers from 0 to {classes - 1}.")
        if len(np.unique(positions)) < len(positions):
            raise InvalidInput("labelled holds a position twice; give each image one label.")
        rows = self._place[positions]
        ascending = np.argsort(rows)
        return rows[ascending], wanted[ascending]

    def _part(self, features: NDArray[Any], student: NDArray[Any], generator: np.random.Generator) -> Projection:
        """The projection of one of the teacher's features; where it is the student's, the one that there is."""
        count, known = self._config.components, self._student_part
        if count <= known.axes.shape[1] and features.dtype == student.dtype and np.array_equal(features, student):
            return Projection(known.mean, np.ascontiguousarray(known.axes[:, :count]))
        return principal_components(features, self._order, count, generator)

    def _leading(self) -> Floats:
        """What neighbours are found by: the leading components of each kind, of length 1 together."""
        widths = [part.axes.shape[1] for part in self._parts]
        starts = np.cumsum([0, *widths[:-1]])
        columns = [np.arange(start, start + min(width, SEARCHED)) for start, width in zip(starts, widths, strict=True)]
        return normalised(self._joined[:, np.concatenate(columns)])

    def _word(self, rows: NDArray[np.int64], wanted: NDArray[np.int64], classes: int, rounds: int) -> Floats:
        """T's probabilities (N, C) for the pool in its own order."""
        config = self._config
        seeds = np.zeros((len(self._joined), classes), dtype=np.float32)
        seeds[rows, wanted] = 1 / np.bincount(wanted, minlength=classes)[wanted]  # each class has the same to spread
        near = spread(self._graph, seeds, alpha=config.alpha, steps=config.steps)
        total = near.sum(axis=1, keepdims=True)
        heard = total[:, 0] > 0
        near = np.log(np.maximum(near / np.where(total > 0, total, 1), FAINT))
        labels = np.eye(classes, dtype=np.float32)[wanted]
        values = fit_logistic(self._joined[rows], labels, np.ones(len(rows)), config.decay)
        density = _density(wanted)
        trust = config.own[0] + (config.own[1] - config.own[0]) * density / (density + config.own_half)
        word: Floats | None = None
        for _ in range(rounds):
            if word is not None:
                values = self._from_word(self._joined, word, rows, wanted, start=values)
            own = np.log(np.maximum(softmax(linear(values, self._joined)), np.float32(1e-6)))
            both = np.where(heard[:, None], (1 - trust) * near + trust * own, own)
            word = softmax(config.sharpness * both)
        assert word is not None  # there is one round at least
        return word

    def _worth_hearing(
        self, rows: NDArray[np.int64], wanted: NDArray[np.int64], folds: NDArray[np.int64], left_out: Floats
    ) -> bool:
        """Whether S-KD is right about left-out labels at least as often as S, whose words on them are `left_out`."""
        ours = theirs = 0
        for fold in range(min(JUDGES, int(folds.max()))):
            out = folds == fold
            said = self._distilled_of(rows, wanted, left_out.shape[1], out, rounds=1)
            ours += int((said.argmax(axis=1) == wanted[out]).sum())
            theirs += int((left_out[out].argmax(axis=1) == wanted[out]).sum())
        return ours >= theirs

    def _distilled_of(
        self, rows: NDArray[np.int64], wanted: NDArray[np.int64], classes: int, out: NDArray[np.bool_], rounds: int
    ) -> Floats:
        """What S-KD says of the labels `out` when neither it nor T has seen them: (O, C) probabilities."""
        word = self._word(rows[~out], wanted[~out], classes, rounds)
        values = self._from_word(self._student, word, rows[~out], wanted[~out])
        return softmax(linear(values, self._student[rows[out]]))

    def _from_word(
        self,
        features: Floats,
        word: Floats,
        rows: NDArray[np.int64],
        wanted: NDArray[np.int64],
        *,
        start: NDArray[np.float64] | None = None,
        label_weight: float | None = None,
        decay: float | None = None,
    ) -> NDArray[np.float64]:
        """The map on these features that learns T's word on all images and the labels."""
        share = self._label_share(wanted) if label_weight is None else label_weight
        taught = _some(len(features), rows)
        told = lessons(word[taught], np.searchsorted(taught, rows), wanted, share)
        decay = self._config.decay if decay is None else decay
        return fit_logistic(features[taught], told.targets, told.weights, decay, start=start)

    def _label_share(self, wanted: NDArray[np.int64]) -> float:
        """What the labels' loss weighs beside the word's: the more, the more labels there are of a class."""
        density = _density(wanted)
        return density / (density + self._config.label_half)

    def _folded(self, values: NDArray[np.float64]) -> Head:
        """The head on raw features that a map on the student's components is."""
        axes, mean = self._student_part.axes.astype(np.float64), self._student_part.mean.astype(np.float64)
        weight = axes @ values[:-1]  # (D, C)
        return Head(weight.T.astype(np.float32), (values[-1] - mean @ weight).astype(np.float32))


def _density(wanted: NDArray[np.int64]) -> float:
    """Labels a class, of the classes that have any."""
    return len(wanted) / len(np.unique(wanted))


def _some(size: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """All rows, or of a large pool those labelled and others evenly spaced, ascending."""
    if size <= TAUGHT:
        return np.arange(size)
    return np.union1d(rows, np.linspace(0, size - 1, TAUGHT).astype(np.int64))


def _order(kinds: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Row numbers in an order that depends on what the rows hold, not on where they stand."""
    prints = []
    for rows in zip(*kinds, strict=True):
        digest = hashlib.blake2b(digest_size=16)
        for row in rows:
            digest.update(row.tobytes())
        prints.append(digest.digest())
    return np.asarray(sorted(range(len(prints)), key=prints.__getitem__), dtype=np.int64)


def _check_features(student: NDArray[Any], teacher: Sequence[NDArray[Any]]) -> None:
    if not teacher:
        raise InvalidInput("teacher must hold at least one kind of features.")
    named = [("student", student), *((f"teacher[{i}]", features) for i, features in enumerate(teacher))]
    for name, features in named:
        if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
            raise InvalidInput(f"{name} must hold floats of the shape (N, D), not {features.dtype} {features.shape}.")
        if len(features) != len(student):
            raise InvalidInput(f"{name} holds {len(features)} images; the student's features {len(student)}.")
        if not features.size:
            raise InvalidInput(f"{name} is empty.")
        for start in range(0, len(features), BLOCK):
            if not np.isfinite(features[start : start + BLOCK]).all():
                raise InvalidInput(f"{name} holds NaN or an infinite value; find out which image gave it.")


def _whole(name: str, values: ArrayLike) -> NDArray[np.int64]:
    """`values` as (L,) int64."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise InvalidInput(f"{name} must be whole numbers of the shape (L,), not {array.dtype} {array.shape}.")
    return array.astype(np.int64)
