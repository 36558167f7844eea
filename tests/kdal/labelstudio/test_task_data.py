import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdal.labelstudio.task_data import data_with, image_address, why_no_address
from tests.kdal.values import json_values


def task(data):
    return {"id": 7, "data": data}


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"image": "a.png"}, "image"),
        ({"meta": {"image": "a.png"}}, "meta.image"),
        ({"a": {"b": {"c": {"d": "a.png"}}}}, "a.b.c.d"),
        ({"pages": [{"url": "a.png"}, {"url": "b.png"}]}, "pages[0].url"),
        ({"pages": ["b.png", "a.png"]}, "pages[1]"),
        ({"pages": ["a.png"]}, "pages.0"),
        ({"meta.image": "a.png"}, "meta.image"),
        ({"meta.image": "a.png", "meta": {"image": "b.png"}}, "meta.image"),  # as Label Studio's editor has it
        ({"pages[0]": "a.png", "pages": ["b.png"]}, "pages[0]"),
        ({"photo url": "a.png"}, "photo url"),
        ({"0": "a.png"}, "0"),
    ],
)
def test_an_address_is_found_under_its_key_or_at_the_end_of_the_path(data, key):
    assert image_address(task(data), key) == "a.png"


@pytest.mark.parametrize(
    ("data", "key", "why"),
    [
        ({}, "image", 'no image address under "image"'),
        ({"image": None}, "image", 'no image address under "image"'),
        ({"image": ""}, "image", 'no image address under "image"'),
        ({"image": 5}, "image", "but a number"),
        ({"image": True}, "image", "but true or false"),
        ({"image": {"url": "a.png"}}, "image", "but an object"),
        ({"image": ["a.png", "b.png"]}, "image", "a list of 2 images"),
        ({"meta": {"image": ["a.png"]}}, "meta.image", "a list of 1 images"),
        ({"meta": "a.png"}, "meta.image", 'under "meta.image"'),
        ({"meta": ["a.png"]}, "meta.image", 'under "meta.image"'),
        ({"meta.image": None, "meta": {"image": "b.png"}}, "meta.image", 'under "meta.image"'),
        ({"pages": ["a.png"]}, "pages[1]", 'under "pages[1]"'),
        ({"pages": ["a.png"]}, "pages[-1]", 'under "pages[-1]"'),
        ({"a": {"": "a.png"}}, "a.", "an object"),
    ],
)
def test_what_is_no_address_is_told_from_one(data, key, why):
    assert image_address(task(data), key) is None
    assert why in why_no_address(task(data), key)


@given(json_values, st.sampled_from(["image", "meta.image", "a[0].b", "", ".", "[]", "[0]"]))
def test_any_json_as_a_task_has_an_address_or_not(value, key):
    for found in (value, task(value), task({"meta": value, "a": [value], "image": value})):
        address = image_address(found, key)
        assert address is None or address
        assert why_no_address(found, key)


@given(st.lists(st.from_regex(r"\A[A-Za-z_]\w{0,5}(\[[0-3]\])?\Z"), min_size=1, max_size=4))
def test_what_is_written_under_a_key_is_read_there(steps):
    key = ".".join(steps)
    assert image_address(task(data_with(key, "a.png")), key) == "a.png"
