import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from kdal_core.distillation import MixupConfig, QueryLedger, SoftLabel, StageConfig, TorchTeacher, active_mixup
from kdal_core.distillation.learning import HeadOnly
from kdal_core.models import FrozenClassifier, backbone

CLASSES = tuple("0123456789")


@pytest.fixture(scope="module")
def body():
    """MobileNetV2 with its pretrained weights."""
    return backbone("mobilenet_v2")


@pytest.fixture
def looks(body):
    """How many images the backbone looks at, each time."""
    counts = []
    hook = body.register_forward_hook(lambda _, images, __: counts.append(len(images[0])))
    yield counts
    hook.remove()


def hard(labels):
    return [SoftLabel(row) for row in F.one_hot(torch.as_tensor(labels), 10).float()]


def test_a_head_on_hard_answers_is_logistic_regression_on_the_features(digits, body):
    images, labels = digits.images[:40], digits.labels[:40]
    learn = HeadOnly(body)
    model, training = learn(images, hard(labels), range(40), 0)
    assert training is None
    assert isinstance(model, FrozenClassifier)
    assert not model.training
    features = F.normalize(learn.features(images)).numpy()
    rival = LogisticRegression(C=30, max_iter=2000).fit(features, labels)
    with torch.inference_mode():
        said = model(images.float() / 255).softmax(dim=1).numpy()
    assert np.abs(said - rival.predict_proba(features)).max() < 0.03


def test_a_row_that_comes_twice_counts_twice(digits, body):
    learn = HeadOnly(body)
    images, targets = digits.images[:3], hard([0, 0, 1])
    twice = learn(torch.cat([images, images[2:]]), hard([0, 0, 1, 1]), range(4), 0)[0].head.weight
    counted = learn(images, targets, [0, 1, 2, 2], 0)[0].head.weight
    # The decay is that of as many images as there are, so the scale of the two differs a little.
    assert F.cosine_similarity(twice.flatten(), counted.flatten(), dim=0) > 0.999
    once = learn(images, targets, [0, 1, 2], 0)[0].head.weight
    assert not torch.allclose(once, counted, atol=1e-3)


def test_the_backbone_looks_at_each_image_once(digits, body, looks):
    learn = HeadOnly(body, batch_size=8)
    learn(digits.images[:12], hard(digits.labels[:12]), range(12), 0)
    learn(digits.images[:20], hard(digits.labels[:20]), range(20), 1)
    assert sum(looks) == 20
    assert max(looks) == 8


def test_a_student_that_is_a_head_is_distilled_in_stages(digits, student, body):
    config = MixupConfig(StageConfig(sizes=(3, 4)), lambdas=(0.5,))
    teacher = TorchTeacher(student, CLASSES, device="cpu")
    done = active_mixup(
        teacher, digits.images[:10], "frozen/mobilenet_v2", QueryLedger(17), config, learn=HeadOnly(body)
    )
    assert [stage.images for stage in done.history] == [10, 13, 17]
    assert done.spec.architecture == "frozen/mobilenet_v2"
    with torch.inference_mode():
        said = done.student(digits.images[:10].float() / 255).argmax(dim=1)
    assert (said == teacher.query(digits.images[:10]).argmax(dim=1)).float().mean() > 0.8
