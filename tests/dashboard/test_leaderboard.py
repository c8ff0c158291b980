import re


def test_the_start_ranks_the_largest_dataset(client):
    text = client.get("/").text
    assert text.index("patchcore") < text.index(">padim")
    assert "<strong>0.910</strong>" in text
    assert re.search(r'href="/\?dataset=mvtec_ad" aria-current="true"', text)
    assert "killed at 4.1 GB" in text  # why a run failed is in a note
    assert "0.500" in client.get("/?dataset=visa").text
    assert client.get("/?dataset=none").status_code == 404
