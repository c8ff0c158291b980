import re

import pytest

from iadbe import registry
from iadbe.dashboard.detectors import format_value


def test_detectors_can_be_searched(client):
    whole = client.get("/detectors").text
    assert all(f'href="/detectors/{name}"' in whole for name in registry.names("detectors"))
    flows = client.get("/detectors", params={"kind": "flow"}).text
    assert 'href="/detectors/fastflow"' in flows
    assert 'href="/detectors/padim"' not in flows
    found = client.get("/detectors", params={"find": "total recall"}).text
    assert re.findall(r'href="/detectors/(\w+)"', found) == ["patchcore"]
    assert "No detector matches" in client.get("/detectors", params={"find": "<x>"}).text


def test_a_page_has_defaults_the_papers_values_and_results(client):
    text = client.get("/detectors/padim").text
    row = re.search(r"<tr>\s*<th scope=\"row\"><code>dims</code></th>(.*?)</tr>", text, re.DOTALL)[1]
    assert re.findall(r"<code>(.*?)</code>", row)[1:] == ["550"]
    assert "2011.08785" in text
    assert re.search(r'href="/\?dataset=mvtec_ad">mvtec_ad</a>.*?0\.890', text, re.DOTALL)  # mean of 0.9, 0.89, 0.88
    assert 'href="/new?detector=padim"' in text
    assert "killed" not in text
    assert client.get("/detectors/none").status_code == 404


def test_a_page_shows_what_the_paper_used_for_a_category(client):
    text = client.get("/detectors/cpr").text
    found = re.search(r"<dt>In the paper for mvtec_ad/carpet</dt><dd>(.*?)</dd>", text)
    assert re.findall(r"<code>(.*?)</code>", found[1]) == ["kind=texture", "steps=500"]


@pytest.mark.parametrize("name", registry.names("detectors"))
def test_every_detector_has_a_page(client, name):
    text = client.get(f"/detectors/{name}").text
    assert "<h3>Paper</h3>" in text
    assert not re.search(r"(<p>|\n|\. )\* ", text), "a bullet list that is not one on the page"
    assert "``" not in text


def test_values_are_formatted_as_on_the_command_line():
    assert [format_value(v) for v in (True, None, [1, 2], 0.1, 1e-5, "x")] == [
        "true",
        "none",
        "1,2",
        "0.1",
        "1e-05",
        "x",
    ]
