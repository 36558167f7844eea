import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdal.labelstudio.formats import FORMATS, controls, format_for, format_of, notes
from kdal.policy import Policy
from kdal_core.errors import ConfigError
from kdal_core.tasks import task_kinds
from tests.kdal.values import outcome

CHOICE = '<Choice value="cat"/><Choice value="dog"/>'
IMAGE = '<Image name="image" value="$image"/>'


def config(choices=f'<Choices name="animal" toName="image">{CHOICE}</Choices>', objects=IMAGE):
    return f"<View>{objects}{choices}</View>"


def classes(label_config):
    return format_for(label_config).task().classes


def test_the_choices_of_a_plain_config_are_the_classes_in_its_order():
    form = format_for(config())
    assert tuple(form.task().classes) == ("cat", "dog")
    assert form.image_key == "image"


def test_the_image_key_is_the_one_that_the_config_names():
    assert format_for(config(objects='<Image value="$photo_url" name="image"/>')).image_key == "photo_url"


def test_comments_and_a_declaration_are_passed_by():
    text = '<?xml version="1.0" encoding="utf-8"?>' + config(
        f'<!-- <Choices name="old" toName="image"/> --><Choices name="a" toName="image"><!-- x -->{CHOICE}</Choices>'
    )
    assert tuple(classes(text)) == ("cat", "dog")


def test_an_alias_is_the_name_that_label_studio_puts_into_results():
    text = config('<Choices name="a" toName="image"><Choice value="Katze" alias="cat"/><Choice value="dog"/></Choices>')
    assert tuple(classes(text)) == ("cat", "dog")


def test_a_duplicate_choice_is_one_class():
    text = config(f'<Choices name="a" toName="image">{CHOICE}<Choice value="cat"/></Choices>')
    assert tuple(classes(text)) == ("cat", "dog")


def test_choices_inside_tags_of_layout_are_found():
    text = config(f'<Choices name="a" toName="image"><View><View>{CHOICE}</View></View></Choices>')
    assert tuple(classes(text)) == ("cat", "dog")


def test_a_header_inside_the_choices_is_no_class():
    text = config(f'<Choices name="a" toName="image"><Header value="Which one?"/>{CHOICE}</Choices>')
    assert tuple(classes(text)) == ("cat", "dog")


def test_a_control_that_kdal_does_not_serve_may_stand_beside_one_that_it_does():
    text = config(f'<TextArea name="note" toName="image"/><Choices name="a" toName="image">{CHOICE}</Choices>')
    assert tuple(classes(text)) == ("cat", "dog")


@pytest.mark.parametrize("choice", ["single", "single-radio"])
def test_a_single_choice_is_served_however_it_is_drawn(choice):
    text = config(f'<Choices name="a" toName="image" choice="{choice}" perRegion="false">{CHOICE}</Choices>')
    assert tuple(classes(text)) == ("cat", "dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<View/>", "no control tag at all"),
        (f"<View>{IMAGE}</View>", "no control tag at all"),
        (config('<TextArea name="note" toName="image"/>'), '<TextArea name="note">'),
        (
            config('<EllipseLabels name="area" toName="image"><Label value="x"/></EllipseLabels>'),
            '<EllipseLabels name="area">',
        ),
        (
            config(
                f'<Choices name="a" toName="image">{CHOICE}</Choices>'
                f'<Choices name="b" toName="image">{CHOICE}</Choices>'
            ),
            '<Choices name="a"> and <Choices name="b">',
        ),
        (
            config(
                '<VectorLabels name="a" toName="image"><Label value="lane"/></VectorLabels>'
                '<PolygonLabels name="b" toName="image"><Label value="lane"/></PolygonLabels>'
            ),
            '<VectorLabels name="a"> and <PolygonLabels name="b">: keep one of them, or give each a project of its own',
        ),
        (config('<VectorLabels name="lane" toName="image"/>'), '<VectorLabels name="lane"> needs at least one <Label'),
        (
            f'<View><Text name="text" value="$text"/><Choices name="mood" toName="text">{CHOICE}</Choices></View>',
            '<Choices name="mood"> is bound to "text"',
        ),
        (config(f'<Choices name="a" toName="nothing">{CHOICE}</Choices>'), '<Choices name="a"> is bound to "nothing"'),
        (config(objects='<Image name="image" valueList="$images"/>'), "which is no <Image value"),
        (
            config(f'<Choices name="many" toName="image" choice="multiple">{CHOICE}</Choices>'),
            '<Choices name="many"> allows several choices',
        ),
        (
            config(f'<Choices name="region" toName="image" perRegion="true">{CHOICE}</Choices>'),
            '<Choices name="region"> is per region',
        ),
        (
            config(f'<Choices name="tree" toName="image" allowNested="true">{CHOICE}</Choices>'),
            '<Choices name="tree"> allows nested choices',
        ),
        (
            config('<Choices name="one" toName="image"><Choice value="cat"/><Choice value="cat"/></Choices>'),
            '<Choices name="one"> needs at least two',
        ),
        (config('<Choices name="none" toName="image" value="$options"/>'), '<Choices name="none"> needs at least two'),
    ],
)
def test_a_config_that_kdal_cannot_serve_is_refused_by_its_tag(text, message):
    with pytest.raises(ConfigError) as caught:
        format_for(text)
    assert message in str(caught.value)
    assert str(caught.value).startswith("labelling config: ")


BOXES = '<RectangleLabels name="box" toName="image"><Label value="cell"/><Label value="dust"/></RectangleLabels>'
LINES = '<VectorLabels name="line" toName="image"><Label value="lane"/></VectorLabels>'
CHOICES = f'<Choices name="quality" toName="image">{CHOICE}</Choices>'
SHAPES = ("PolygonLabels", "BrushLabels", "KeyPointLabels")


def shape(tag):
    return f'<{tag} name="area" toName="image"><Label value="cell"/></{tag}>'


@pytest.mark.parametrize("tag", SHAPES)
def test_shapes_are_lanes_only_if_the_owner_says_so(tag):
    for policy in (None, Policy(), Policy(strategy="random")):
        with pytest.raises(ConfigError) as caught:
            format_for(config(shape(tag)), policy)
        assert f'kdal takes <{tag} name="area"> for lanes only if the extra params say so' in str(caught.value)
        assert '{"task": "lanes"}' in str(caught.value)
        assert "<RectangleLabels>" in str(caught.value)
    assert format_for(config(shape(tag)), Policy(task="lanes")).task().kind == "lanes"


@pytest.mark.parametrize("tag", ["VectorLabels", "Vector"])
def test_vectors_are_lanes_unasked(tag):
    assert format_for(config(shape(tag))).task().kind == "lanes"
    assert format_for(config(shape(tag)), Policy(task="lanes")).task().kind == "lanes"


@pytest.mark.parametrize(
    ("kind", "control", "needs"),
    [
        ("boxes", CHOICES, '"task": "boxes" needs <RectangleLabels> on an <Image>, found <Choices name="quality">'),
        ("classification", BOXES, 'needs <Choices> on an <Image>, found <RectangleLabels name="box">'),
        ("lanes", BOXES, "needs <VectorLabels>, <Vector>, <KeyPointLabels>, <PolygonLabels>, <BrushLabels> on an"),
        ("boxes", shape("PolygonLabels"), 'needs <RectangleLabels> on an <Image>, found <PolygonLabels name="area">'),
        ("boxes", "", "found no control tag at all"),
    ],
)
def test_a_kind_that_the_config_has_no_control_for_is_refused_with_the_tag_that_it_needs(kind, control, needs):
    with pytest.raises(ConfigError) as caught:
        format_for(config(control), Policy(task=kind))
    assert needs in str(caught.value)


BESIDE = [
    CHOICES,
    '<Choices name="kind" toName="image" perRegion="true"><Choice value="a"/><Choice value="b"/></Choices>',
    f'<Choices name="many" toName="image" choice="multiple">{CHOICE}</Choices>',
    '<Choices name="free" toName="image" value="$options"/>',
    '<TextArea name="note" toName="image" perRegion="true"/>',
    '<Rating name="stars" toName="image"/>',
    '<Number name="count" toName="image"/>',
    '<DateTime name="when" toName="image"/>',
    '<Taxonomy name="tree" toName="image"><Choice value="a"><Choice value="b"/></Choice></Taxonomy>',
    '<Ellipse name="round" toName="image"/>',
    '<EllipseLabels name="rounds" toName="image"><Label value="a"/></EllipseLabels>',
    '<Labels name="names" toName="image"><Label value="a"/></Labels>',
    '<KeyPoint name="clicks" toName="image"/>',
    '<Relations><Relation value="is part of"/></Relations>',
]


@pytest.mark.parametrize("other", BESIDE)
@pytest.mark.parametrize(("served", "kind"), [(BOXES, "boxes"), (LINES, "lanes")])
@pytest.mark.parametrize("first", [True, False])
def test_what_is_drawn_is_served_and_other_controls_beside_it_are_left_alone(served, kind, other, first):
    text = config(other + served if first else served + other)
    assert format_for(text).task().kind == kind
    name = re.search(r'<(\w+) name="(\w+)"', other)
    said = notes(text)
    if name is None:
        assert said == ()
    else:
        (sentence,) = said
        assert re.fullmatch(r'kdal serves <\w+ name="\w+"> and leaves <\w+ name="\w+"> alone', sentence)
        assert f'leaves <{name[1]} name="{name[2]}"> alone' in sentence


def test_a_config_with_one_control_needs_no_note():
    assert notes(config(BOXES)) == notes(config()) == ()


def test_all_controls_that_are_left_alone_are_named_the_first_five():
    ratings = "".join(f'<Rating name="r{i}" toName="image"/>' for i in range(7))
    (sentence,) = notes(config(ratings + BOXES))
    assert '<Rating name="r4"> and 2 more alone' in sentence
    assert "r5" not in sentence


def test_choices_beside_boxes_are_served_if_the_owner_says_so():
    form = format_for(config(BOXES + CHOICES), Policy(task="classification"))
    assert (form.task().kind, tuple(form.task().classes)) == ("classification", ("cat", "dog"))


def test_of_boxes_and_lanes_the_owner_has_to_say_which():
    with pytest.raises(ConfigError) as caught:
        format_for(config(BOXES + LINES + CHOICES))
    assert '<RectangleLabels name="box"> and <VectorLabels name="line">' in str(caught.value)
    assert '{"task": "boxes"} or {"task": "lanes"}' in str(caught.value)
    assert format_for(config(BOXES + LINES), Policy(task="boxes")).task().kind == "boxes"
    assert format_for(config(BOXES + LINES), Policy(task="lanes")).task().kind == "lanes"


def test_polygons_beside_boxes_are_left_alone():
    assert format_for(config(shape("PolygonLabels") + BOXES)).task().kind == "boxes"


def test_one_choice_an_image_is_served_beside_several():
    several = f'<Choices name="many" toName="image" choice="multiple">{CHOICE}</Choices>'
    assert format_for(config(several + CHOICES)).task().kind == "classification"


def test_one_control_for_each_of_two_images_is_refused_and_both_are_named():
    second = BOXES.replace('"box"', '"right"').replace('toName="image"', 'toName="other"')
    text = config(BOXES + second, IMAGE + '<Image name="other" value="$other"/>')
    with pytest.raises(ConfigError, match='"box"> and <RectangleLabels name="right">: keep one of them'):
        format_for(text)


def test_the_image_that_the_control_is_bound_to_counts_and_no_other():
    images = '<Image name="first" value="$a"/><Image name="image" value="$b"/><Image name="last" valueList="$c"/>'
    assert format_for(config(BOXES, images)).image_key == "b"


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("$image", "image"),
        ("$meta.image", "meta.image"),
        ("$pages[0].url", "pages[0].url"),
        ("$photo-url", "photo-url"),
        ("$photo url", "photo url"),
        ("$фото", "фото"),
        ("$_", "_"),
    ],
)
def test_the_image_key_is_the_key_or_the_path_to_it(value, key):
    assert format_for(config(objects=f'<Image name="image" value="{value}"/>')).image_key == key


@pytest.mark.parametrize("control", [CHOICES, BOXES, LINES])
@pytest.mark.parametrize(
    ("image", "why"),
    [
        ('<Image name="image" valueList="$images"/>', 'shows a list of images (valueList="$images")'),
        ('<Image name="image" valuelist="$images"/>', 'shows a list of images (valueList="$images")'),
        ('<Image name="image" value="$image" valueList="$images"/>', "shows a list of images"),
        ('<Repeater on="$images"><Image name="image" value="$images[{{idx}}].url"/></Repeater>', "in a <Repeater>"),
        ('<Image name="image" value="https://images.example/$file"/>', 'its value is "https://images.example/$file"'),
        ('<Image name="image" value="$folder/$file"/>', 'its value is "$folder/$file"'),
        ('<Image name="image" value="image"/>', 'its value is "image"'),
        ('<Image name="image" value="$"/>', 'its value is "$"'),
        ('<Image name="image" value=""/>', 'its value is ""'),
        ('<Image name="image"/>', 'its value is ""'),
        ('<Image name="another" value="$image"/>', 'bound to "image", which is no <Image'),
        ('<Video name="image" value="$image"/>', 'bound to "image", which is no <Image'),
    ],
)
def test_an_image_that_kdal_cannot_take_is_refused_with_the_reason(control, image, why):
    with pytest.raises(ConfigError) as caught:
        format_for(config(control, image))
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (config().replace("Choices", "choices"), "write <Choices>"),
        (config(BOXES.replace("RectangleLabels", "rectanglelabels")), "write <RectangleLabels>"),
        (config().replace("<View>", '<View xmlns="http://labelstudio.example">'), "write <Choices>, without a name"),
        (
            config(
                '<Rectangle name="r" toName="image"/><Labels name="l" toName="image"><Label value="a"/></Labels>',
            ),
            "write <RectangleLabels> in place of <Rectangle>",
        ),
        (config('<Taxonomy name="t" toName="image"/>'), 'write <Choices choice="single"> in place of <Taxonomy>'),
    ],
)
def test_a_config_that_is_nearly_served_is_refused_with_what_to_write(text, hint):
    with pytest.raises(ConfigError) as caught:
        format_for(text)
    assert hint in str(caught.value)


def test_labels_that_come_from_each_tasks_data_are_refused():
    for control in (
        '<RectangleLabels name="box" toName="image" value="$labels"/>',
        BOXES.replace(">", ' value="$l">', 1),
    ):
        with pytest.raises(ConfigError, match="its labels come from each task's data"):
            format_for(config(control))


def test_attributes_are_read_whatever_their_capitals():
    for attribute in ('perregion="true"', 'PERREGION="True"', 'Choice="multiple"'):
        with pytest.raises(ConfigError, match=r"is per region|several choices"):
            format_for(config(f'<Choices name="a" toName="image" {attribute}>{CHOICE}</Choices>'))


def test_an_image_beside_its_control_deep_inside_tags_of_layout_is_found():
    text = f"<View>{'<View>' * 50}{IMAGE}{'</View>' * 50}<View><Style/>{BOXES}</View></View>"
    assert format_for(text).image_key == "image"


def test_hotkeys_colours_and_aliases_of_labels_do_no_harm():
    labels = '<Label value="Zelle" alias="cell" hotkey="z" background="red"/><Label value="Staub" alias="dust"/>'
    text = config(f'<RectangleLabels name="box" toName="image">{labels}</RectangleLabels>')
    assert tuple(classes(text)) == ("cell", "dust")


def test_the_format_of_a_kind_is_found_whatever_the_policy_and_else_what_is_served():
    assert format_of("lanes", config(shape("PolygonLabels"))).task().kind == "lanes"
    assert format_of("lanes", config(LINES + BOXES)).task().kind == "lanes"
    assert format_of("lanes", config(BOXES)).task().kind == "boxes"


def test_each_format_says_its_tag_and_a_kind_that_exists():
    found = {form.tag: form.kind for form in FORMATS.values()}
    assert set(found.values()) == set(task_kinds())
    assert list(found)[:3] == ["Choices", "RectangleLabels", "VectorLabels"]


BOMB = (
    '<!DOCTYPE bomb [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
    + "]><View>&j;</View>"
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "no xml",
        "<View>",
        "<View></Choices>",
        "<View/><View/>",
        "<View a=1/>",
        "<View>&nbsp;</View>",
        "<View>\0</View>",
        "<View>\ud800</View>",
        '{"xml": false}',
        '<!DOCTYPE View SYSTEM "http://127.0.0.1:9/x.dtd"><View/>',
        '<!DOCTYPE View [<!ENTITY file SYSTEM "file:///etc/passwd">]><View>&file;</View>',
        BOMB,
    ],
)
def test_what_is_not_xml_or_an_attack_is_a_config_error(text):
    with pytest.raises(ConfigError, match="labelling config: not valid XML"):
        format_for(text)


def test_a_config_of_ten_thousand_choices_is_read():
    choices = "".join(f'<Choice value="class {i}"/>' for i in range(10_000))
    assert len(classes(config(f'<Choices name="a" toName="image">{choices}</Choices>'))) == 10_000


def test_a_config_nested_ten_thousand_deep_is_read():
    text = f"<View>{'<View>' * 10_000}{config()}{'</View>' * 10_000}</View>"
    assert tuple(classes(text)) == ("cat", "dog")


names = st.text(string.ascii_letters, min_size=1, max_size=5)
attributes = st.dictionaries(
    st.sampled_from(["name", "toName", "value", "alias", "choice", "perRegion", "allowNested", "x"]),
    st.sampled_from(["image", "$image", "a", "b", "c", "true", "multiple", "single", "&lt;", ""]),
)
elements = st.recursive(
    st.builds(lambda tag, a: (tag, a, []), st.sampled_from(["Image", "Choice", "Text"]), attributes),
    lambda inner: st.tuples(st.sampled_from(["View", "Choices", "Choice"]), attributes, st.lists(inner, max_size=4)),
    max_leaves=12,
)


def render(element):
    tag, attrs, children = element
    text = "".join(f' {name}="{value}"' for name, value in attrs.items())
    return f"<{tag}{text}>{''.join(map(render, children))}</{tag}>"


@given(elements)
def test_any_tree_of_tags_is_served_with_two_classes_or_more_or_refused(element):
    found = outcome(ConfigError, lambda: format_for(render(element)))
    if isinstance(found, ConfigError):
        assert str(found).startswith("labelling config: ")
    else:
        assert len(found.task().classes) >= 2
        assert found.image_key


@given(st.text())
def test_any_text_is_a_config_error(text):
    with pytest.raises(ConfigError):
        format_for(text)


def test_controls_know_what_they_are_bound_to():
    (control,) = controls(config())
    assert (control.tag, control.name, control.image_name, control.image_key) == ("Choices", "animal", "image", "image")
    assert control.labels == ("cat", "dog")


def test_a_config_of_many_tags_inside_each_other_is_read_in_time_that_grows_with_it():
    """Each label belongs to the nearest control around it: 20,000 of them were walked 20,000 times."""
    count = 20_000
    tag = '<Choices name="c" toName="image"><Choice value="a"/>'
    config = f'<View><Image name="image" value="$image"/>{tag * count}{"</Choices>" * count}</View>'
    found = controls(config)
    assert (len(found), {control.labels for control in found}) == (count, {("a",)})
