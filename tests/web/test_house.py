from iadbe.web.rules import Rules


def test_rates_follow_the_rules(serve, filled):
    house = serve(filled, Rules(predict_rate=3, failures=2)).house
    assert (house.predictions.size, house.logins.size) == (3, 2)


def test_streams_are_told_to_end(serve, filled):
    client = serve(filled)
    assert not client.house.ending.is_set()
    client.__exit__(None, None, None)
    assert client.house.ending.is_set()
    client.__enter__()  # the fixture leaves it once more
