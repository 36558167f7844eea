"""The training loop."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from kdal_core.errors import ConfigError
from kdal_core.models import Network
from kdal_core.models.seeding import seeded
from kdal_core.tasks import Task
from kdal_core.training.averages import measure_averages, plain_batches
from kdal_core.training.config import TrainConfig, resolve_device, use_amp
from kdal_core.training.data import ImageSource, endless_batches, fetch, in_memory, to_float
from kdal_core.training.inference import block_size
from kdal_core.validation import InvalidInput

Progress = Callable[[float], None]


@dataclass(frozen=True)
class TrainResult:
    """What happened: steps taken, images trained on, and the mean loss of each tenth of the run."""

    steps: int
    images: int
    losses: tuple[float, ...]


def train(
    task: Task,
    model: Network,
    images: ImageSource,
    targets: Sequence[Any],
    config: TrainConfig,
    *,
    teacher: Network | None = None,
    unlabelled: ImageSource | None = None,
    rows: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a model in place, from the parameters it comes with; it comes back on the CPU, in eval mode.

    Loss: task loss + `kd_weight` · distillation loss on the same random views, when a teacher is given. With images
    without a label, each step has as many of these, and the distillation loss is the mean of both halves'.
    The last step's model is the result: no checkpoint is chosen, so no held-out label is looked at. The averages that
    its batch norms predict with are taken over its training images, as they are, at the end (`measure_averages`).

    Args:
        task: what is labelled.
        model: network to train.
        images: N uint8 images (3, H, W), all of one size.
        targets: N targets of the task.
        config: how; the result is a function of it, the data and the model's initial parameters.
        teacher: trained network, left as it is.
        unlabelled: M uint8 images of the same form, M >= 0, of which the teacher alone says what they show.
        rows: the positions that a pass over the data goes through, where some are to be seen more often than others;
            None: each once. The number of steps stays that of the images.
        progress: called with the share done, in [0, 1].

    Raises:
        ConfigError: targets that no model can be trained from, an unknown device, or a loss of NaN.
        InvalidInput: as many targets as images are needed; images of another form.
    """
    if len(images) != len(targets):
        raise InvalidInput(f"There are {len(images)} images but {len(targets)} targets.")
    if (reason := task.trainable(targets)) is not None:
        raise ConfigError(f"These labels cannot train a model. {reason}")

    device = resolve_device(config.device)
    amp = use_amp(config.amp, device)
    generator = torch.Generator().manual_seed(config.seed)
    others = torch.Generator().manual_seed(config.seed)
    images, steps = in_memory(images), config.steps(len(targets))
    passed = range(len(targets)) if rows is None else rows
    model.to(device).train()
    teacher = None if teacher is None else copy.deepcopy(teacher).to(device).eval()
    groups = _groups(model, config)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, config.beta2), weight_decay=config.weight_decay, fused=True)
    # A tenth of ten steps would be a phase of no length, by which torch divides.
    warm_up = 0.1 if steps != 10 else 0.2
    peaks = [group["lr"] for group in groups]
    schedule = OneCycleLR(optimizer, max_lr=peaks, total_steps=steps, pct_start=warm_up)
    losses: list[float] = []
    unlabelled = in_memory(unlabelled) if teacher is not None and unlabelled is not None and len(unlabelled) else None
    more = _batches_without_labels(unlabelled, config.batch_size, steps, others)

    with seeded(config.seed, device), torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        for step, drawn in enumerate(endless_batches(len(passed), config.batch_size, steps, generator)):
            batch = [passed[place] for place in drawn]
            x = to_float(fetch(images, batch), device)  # (B, 3, H, W)
            y = task.collate([targets[index] for index in batch])
            extra = to_float(seen, device) if (seen := next(more, None)) is not None else None
            if config.augment:
                if extra is not None:
                    extra, _ = task.augment(extra, y, others)  # whose labels go along does not matter
                x, y = task.augment(x, y, generator)
            y = _to(y, device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
                outputs = model(x)
                loss = task.loss(outputs, y)
                if teacher is not None:
                    halves = [(outputs, x)] if extra is None else [(outputs, x), (model(extra), extra)]
                    distances = [_distance(task, told, teacher, view, config.temperature) for told, view in halves]
                    loss = loss + config.kd_weight * sum(distances) / len(distances)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if math.isnan(losses[-1]):
                raise ConfigError(f"The loss became NaN at step {step + 1} of {steps}: lower the learning rate.")
            if progress is not None and (step + 1) % max(1, steps // 100) == 0:
                progress((step + 1) / steps)
        size = max(config.batch_size, block_size(x.shape[2:], device.type))
        sources = [(images, passed), *([] if unlabelled is None else [(unlabelled, range(len(unlabelled)))])]
        measure_averages(model, plain_batches(sources, size, device, generator))
    model.to("cpu").eval()
    return TrainResult(steps=steps, images=len(targets), losses=_tenths(losses))


def _groups(model: Network, config: TrainConfig) -> list[dict[str, Any]]:
    """A network's parameters and their peak learning rates, as optimisers take them."""
    pretrained = model.pretrained_parameters()
    known = set(map(id, pretrained))
    fresh = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in known]
    backbone_lr = config.lr if config.backbone_lr is None else config.backbone_lr
    groups = [{"params": fresh, "lr": config.lr}, {"params": pretrained, "lr": backbone_lr}]
    return [group for group in groups if group["params"]]


def _distance(task: Task, outputs: Any, teacher: Network, views: Tensor, temperature: float) -> Tensor:
    """The distillation loss of a student's outputs for these views (B, 3, H, W)."""
    with torch.no_grad():
        taught = teacher(views)
    return task.distillation_loss(outputs, taught, temperature)


def _batches_without_labels(
    images: ImageSource | None, batch_size: int, steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """`steps` batches (B, 3, H, W) uint8; none where there are no images."""
    if images is None:
        return
    for batch in endless_batches(len(images), batch_size, steps, generator):
        yield fetch(images, batch)


def _to(value: Any, device: torch.device) -> Any:
    """Collated targets on the device, whatever nesting of lists, tuples and dicts the task uses."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _to(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to(item, device) for item in value)
    return value


def _tenths(losses: list[float]) -> tuple[float, ...]:
    parts = min(10, len(losses))
    edges = [len(losses) * part // parts for part in range(parts + 1)]
    return tuple(sum(losses[a:b]) / (b - a) for a, b in itertools.pairwise(edges))
