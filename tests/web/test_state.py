from iadbe.web.policy import Policy


def test_rates_follow_the_policy(serve, filled):
    server = serve(filled, Policy(predict_rate=3, failures=2)).server
    assert (server.predict_limiter.size, server.login_limiter.size) == (3, 2)


def test_shutdown_ends_streams(serve, filled):
    client = serve(filled)
    assert not client.server.shutting_down.is_set()
    client.__exit__(None, None, None)
    assert client.server.shutting_down.is_set()
    client.__enter__()  # the fixture leaves it once more
