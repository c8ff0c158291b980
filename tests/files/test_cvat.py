import pytest

from iadbe.errors import BadData
from iadbe.files import cvat
from iadbe.files.shapes import rasterise

IMAGE = '<image id="0" name="bad/0.png" width="30" height="20">{}</image>'


def write(folder, text, start='<?xml version="1.0" encoding="utf-8"?>\n'):
    file = folder / "annotations.xml"
    file.write_text(f"{start}{text}", encoding="utf-8")
    return file


def document(*shapes):
    return f"<annotations><version>1.1</version>{IMAGE.format(''.join(shapes))}</annotations>"


@pytest.mark.parametrize(
    ("shape", "pixels"),
    [
        ('<polygon label="dent" points="2.0,3.0;10.0,3.0;10.0,7.0;2.0,7.0"></polygon>', 45),
        ('<box label="dent" xtl="2" ytl="3" xbr="10" ybr="7"/>', 45),
        ('<box label="dent" xtl="4" ytl="8" xbr="12" ybr="12" rotation="90.0"/>', 45),
        ('<mask label="dent" rle="1, 2, 3" left="4" top="5" width="3" height="2"/>', 2),
        ('<polyline label="dent" points="2,3;10,3"/>', 9),
        ('<points label="dent" points="2,3;10,3"/>', 2),
        ('<ellipse label="dent" cx="10.5" cy="10.5" rx="0.1" ry="0.1"/>', 1),
    ],
)
def test_every_shape_has_its_pixels(tmp_path, shape, pixels):
    (image,) = cvat.read_cvat(write(tmp_path, document(shape)))
    assert (image.name, image.size, image.shapes[0].label) == ("bad/0.png", (20, 30), "dent")
    assert rasterise(image.shapes, 20, 30, "a.xml").sum() == pixels


def test_the_mask_is_where_its_runs_say(tmp_path):
    shape = '<mask label="dent" rle="1, 2, 3" left="4" top="5" width="3" height="2"/>'
    (image,) = cvat.read_cvat(write(tmp_path, document(shape)))
    mask = rasterise(image.shapes, 20, 30, "a.xml")
    assert mask[5, 5:7].all()
    assert mask.sum() == 2


def test_labels_of_the_task_are_no_shapes(tmp_path):
    text = "<annotations><meta><labels><label><name>dent</name></label></labels></meta>" + IMAGE.format("")
    (image,) = cvat.read_cvat(write(tmp_path, f"{text}</annotations>"))
    assert image.shapes == ()


BOMB = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;">]>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("start", [BOMB, OUTSIDE, '<!DOCTYPE a SYSTEM "http://example.com/a.dtd">'])
def test_entities_are_refused(tmp_path, start):
    text = document('<polygon label="&x;" points="2,3;4,5;6,7"/>')
    with pytest.raises(BadData, match="it declares a document type or an entity, which is not read"):
        cvat.read_cvat(write(tmp_path, text, start))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<annotations>", "no element found"),
        (document('<polygon label="dent"/>'), "an attribute 'points' is missing"),
        (document('<polygon label="dent" points="1,2,3;4,5,6"/>'), "the points of a polygon are not pairs"),
        (document('<mask label="d" rle="1,x" left="0" top="0" width="1" height="1"/>'), "invalid literal"),
        (document('<cuboid label="d"/>'), "a cuboid cannot be read as a mask"),
        ("<annotations><track id='0'/></annotations>", "it holds the tracks of a video"),
        ("<annotation><object/></annotation>", "it begins with <annotation>"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_the_file(tmp_path, text, said):
    with pytest.raises(BadData) as raised:
        cvat.read_cvat(write(tmp_path, text))
    assert str(tmp_path / "annotations.xml") in str(raised.value)
    assert said in str(raised.value)
