import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdal.labelstudio.formats import controls, format_for
from kdal_core.errors import ConfigError
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
