"""Rounds whose images cannot be read: what they conclude from it, and what they leave as it is."""

import pytest

from kdal.images.errors import NoReadableImageError, UnreachableError
from kdal.images.refs import ImageRef
from kdal.policy import Policy
from kdal.rounds import scoring
from kdal.rounds.progress import StepReport
from kdal.rounds.snapshot import Labelled, Snapshot, take_snapshot
from kdal.rounds.store import DISTILLED, STUDENT, TEACHER, RoundStore
from kdal.rounds.training import promote, training_set
from kdal.rounds.workflow import kind_of
from kdal.storage.assets import MissingAssetError
from kdal_core.errors import AssetError
from kdal_core.models import build_model
from kdal_core.training import ModelSpec, save_checkpoint
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.images.files import PHOTO, encode
from tests.kdal.labelstudio.calls import answer
from tests.kdal.servers import Answer

UID = "3.1795301030"
PHOTO_FILE = encode(PHOTO)


@pytest.fixture
def resources(open_resources, web):
    """No image is kept, so that each is fetched whenever it is read."""
    opened = open_resources(label_studio_url=web.url, cache_bytes=1)
    opened.storage.put_project(3, UID, DIGITS_CONFIG, {})
    return opened


def refs(web, count, first=40):
    return [ImageRef(first + i, f"{web.url}/{first + i}.png") for i in range(count)]


def snapshot_of(pool, labelled=(), policy=None):
    return Snapshot(UID, DIGITS_CONFIG, policy or Policy(), (8, 8), list(labelled), list(pool), [], None)


def score_and_select(resources, snapshot, number=0):
    store = RoundStore(resources.assets, UID, number)
    unusable = {}
    for shard in range(scoring.shard_count(snapshot)):
        scoring.score_shard(resources, store, snapshot, shard, False, None, StepReport(unusable=unusable.update))
    try:
        scoring.select(store, snapshot, False)
    finally:
        assert sorted(unusable) == sorted({ref.task_id for ref in snapshot.pool} - set(ordered(store)))
    return store


def ordered(store):
    try:
        order = store.order()
    except MissingAssetError:
        return []
    return order.tasks[: order.selected]


@pytest.mark.parametrize("count", [1, 3, 7, 20, scoring.SHARD + 1])
def test_a_pool_whose_images_are_all_missing_makes_no_order_and_says_why(resources, web, count):
    with pytest.raises(NoReadableImageError, match=rf"not one of the {count:,} images .*task 40: image .*: 404 "):
        score_and_select(resources, snapshot_of(refs(web, count)))
    with pytest.raises(MissingAssetError):
        RoundStore(resources.assets, UID, 0).order()


def test_a_few_images_that_are_out_of_reach_make_no_order_either(resources, web):
    web.answers = {f"/{number}.png": Answer(b"", 503) for number in range(40, 43)}
    with pytest.raises(NoReadableImageError, match="503"):
        score_and_select(resources, snapshot_of(refs(web, 3)))


@pytest.mark.parametrize(("count", "opens"), [(4, True), (5, False)])
def test_the_last_batch_opens_though_none_of_its_images_can_be_read_and_a_pool_does_not(resources, web, count, opens):
    """Models were trained from the labelled ones: a few broken files at the end are no reason never to serve them."""
    snapshot, store = snapshot_of(refs(web, count), policy=Policy(budget=4)), RoundStore(resources.assets, UID, 0)
    scoring.score_shard(resources, store, snapshot, 0, True, None, StepReport())
    if opens:
        assert scoring.select(store, snapshot, True) == {"ordered": 0, "skipped": 0, "unreadable": 4}
        assert store.order().tasks == [40, 41, 42, 43]
    else:
        with pytest.raises(NoReadableImageError):
            scoring.select(store, snapshot, True)


def test_one_readable_image_makes_an_order_with_the_others_behind_it(resources, web):
    web.answers["/42.png"] = Answer(PHOTO_FILE)
    store = score_and_select(resources, snapshot_of(refs(web, 5)))
    assert store.order().tasks == [42, 40, 41, 43, 44]


def test_an_empty_pool_is_an_empty_order(resources):
    assert score_and_select(resources, snapshot_of([])).order().tasks == []


@pytest.mark.parametrize("count", [1, 9])
def test_labels_whose_images_are_all_missing_train_nothing_and_say_why(resources, web, count):
    labelled = [Labelled(ref, 3, held_out=False) for ref in refs(web, count)]
    reported = {}
    with pytest.raises(NoReadableImageError, match=rf"not one of the {count} labelled images .*task 40: image .*404"):
        training_set(resources, snapshot_of([], labelled), StepReport(unusable=reported.update))
    assert len(reported) == count


def test_such_a_round_begins_again_later_rather_than_at_the_step_that_failed():
    """Its shards are scored already: what failed would fail for ever."""
    assert kind_of(NoReadableImageError("none")) == "error"
    assert kind_of(UnreachableError("away")) == "transient"


# ---------------------------------------------------------------------- how large the images are


def tasks_of(web, count):
    tasks = [{"id": ref.task_id, "data": {"image": ref.uri}} for ref in refs(web, count)]
    web.answers["/api/projects/3"] = answer({"id": 3, "label_config": DIGITS_CONFIG})
    # labelled, unlabelled, skipped
    web.answers["/api/tasks"] = [answer({"tasks": page, "total": len(page)}) for page in ([], tasks, [])]


def snapshot_from(resources):
    store = RoundStore(resources.assets, UID, 0)
    return take_snapshot(resources, resources.storage.project(3), store, StepReport())


def test_a_round_does_not_begin_while_no_image_can_be_reached(resources, web):
    """It would take its images for squares of the usual size, and train so once they can be reached."""
    web.answers = {f"/{number}.png": Answer(b"", 503) for number in range(40, 60)}
    tasks_of(web, 20)
    with pytest.raises(UnreachableError, match="503"):
        snapshot_from(resources)


def test_a_server_that_is_away_does_not_hold_up_the_images_of_others(resources, web):
    web.answers = {f"/{number}.png": Answer(b"", 503) for number in range(40, 40 + 64)}
    web.answers |= {f"/{number}.png": Answer(PHOTO_FILE) for number in range(104, 40 + 200)}
    tasks_of(web, 200)
    height, width = snapshot_from(resources).image_size
    assert width / height == pytest.approx(4 / 3, abs=0.05)


# ---------------------------------------------------------------------- an image that goes away meanwhile


def put_model(resources, number, role, size):
    spec = ModelSpec("classification", "small_cnn", tuple("0123456789"), size)
    store = RoundStore(resources.assets, UID, number)
    store.assets.write(store.key(f"{role}.safetensors"), save_checkpoint(build_model("small_cnn", 10, size), spec))


def test_predictions_never_go_to_another_image_than_theirs(resources, web):
    """The serving model looks at images of another size: the second of three is gone when it does."""
    web.answers = {f"/{number}.png": Answer(PHOTO_FILE) for number in (40, 42)}
    web.answers["/41.png"] = [Answer(PHOTO_FILE), Answer(b"", 404)]
    for role in (STUDENT, TEACHER, DISTILLED):
        put_model(resources, 1, role, (8, 8))
    put_model(resources, 0, DISTILLED, (16, 16))
    store = RoundStore(resources.assets, UID, 1)
    with pytest.raises(AssetError, match="cannot be read any more: task 41"):
        scoring.score_shard(resources, store, snapshot_of(refs(web, 3)), 0, True, 0, StepReport())


def test_models_are_never_compared_by_the_labels_of_other_images(resources, web):
    web.answers = {f"/{number}.png": Answer(PHOTO_FILE) for number in (40, 42)}
    web.answers["/41.png"] = [Answer(PHOTO_FILE), Answer(b"", 404)]
    put_model(resources, 1, DISTILLED, (8, 8))
    put_model(resources, 0, DISTILLED, (16, 16))
    labelled = [Labelled(ref, 3, held_out=True) for ref in refs(web, 3)]
    facts = promote(resources, RoundStore(resources.assets, UID, 1), snapshot_of([], labelled), serving=0)
    assert (facts["held_out"], facts["compared"]) == (3, 2)


# ---------------------------------------------------------------------- what people see


def test_a_project_whose_images_go_away_keeps_its_last_order_and_says_why(make_loop):
    loop = make_loop(computes=True)
    loop.wait_open(0)
    version = loop.project.model_version
    for task in loop.project.tasks.values():
        task["data"]["image"] = "data:image/png;base64,AAAA"
    loop.label(3)
    loop.wait(lambda: loop.rounds[-1].state == "failed", "no round failed")
    assert loop.rounds[-1].number == 1
    assert "not one of the " in loop.rounds[-1].error
    assert "not an image that can be decoded" in loop.rounds[-1].error
    assert loop.project.model_version == version
    assert loop.project.queue()
