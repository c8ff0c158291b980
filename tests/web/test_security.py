import pytest

from iadbe.web import security
from iadbe.web.policy import Policy, policy_for

TOKEN = "a-token-that-is-long-enough"
OPEN = policy_for("0.0.0.0", TOKEN)
BEARER = {"authorization": f"Bearer {TOKEN}"}


class TestHost:
    @pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "LOCALHOST"])
    def test_own_host_names(self, client, host):
        assert client.get("/api/v1/jobs", headers={"host": host}).status_code == 200

    @pytest.mark.parametrize(
        "host",
        ["evil.example", "localhost.evil.example", "evil.example:8080", "192.168.0.7", "", "[", "127.0.0.1.nip.io"],
    )
    def test_a_foreign_host_name_is_refused(self, client, host):
        response = client.get("/api/v1/jobs", headers={"host": host})
        assert response.status_code == 421
        assert response.headers["content-type"] == "application/problem+json"

    def test_an_open_server_accepts_addresses_but_no_names(self, serve, filled):
        client = serve(filled, OPEN, headers=BEARER)
        assert client.get("/api/v1/jobs", headers={"host": "192.168.0.7:8080"}).status_code == 200
        assert client.get("/api/v1/jobs", headers={"host": "evil.example"}).status_code == 421


class TestToken:
    @pytest.mark.parametrize(
        "path",
        [
            "/",
            "/docs",
            "/api/v1/openapi.json",
            "/api/v1/runs",
            "/api/mvtec-benchmark",
            "/docs-assets/swagger-ui.css",
            "/loginx",
        ],
    )
    def test_nothing_is_served_without_it(self, serve, filled, path):
        response = serve(filled, OPEN, headers={}).get(path)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"

    def test_in_the_header(self, serve, filled):
        client = serve(filled, OPEN, headers={})
        assert client.get("/api/v1/runs", headers=BEARER).status_code == 200
        for wrong in (f"Bearer {TOKEN}x", "Bearer ", f"Basic {TOKEN}", TOKEN):
            assert client.get("/api/v1/runs", headers={"authorization": wrong}).status_code == 401

    def test_wrong_tokens_are_limited(self, serve, filled):
        client = serve(filled, policy_for("0.0.0.0", TOKEN, failures=3), headers={})
        codes = [client.get("/api/v1/runs", headers={"authorization": f"Bearer {n}"}).status_code for n in range(5)]
        assert codes == [401, 401, 401, 429, 429]
        assert client.get("/api/v1/runs", headers=BEARER).status_code == 200  # never locked out

    def test_a_browser_is_redirected_to_the_login_and_back(self, serve, filled):
        client = serve(filled, OPEN, headers={"accept": "text/html", "origin": "http://localhost"})
        response = client.get("/?dataset=visa", follow_redirects=False)
        assert (response.status_code, response.headers["location"]) == (303, "/login?to=/%3Fdataset%3Dvisa")
        assert client.get("/login").status_code == 200
        assert client.get("/static/web.css").status_code == 200
        response = client.post("/login", data={"token": TOKEN, "to": "/docs"}, follow_redirects=False)
        assert (response.status_code, response.headers["location"]) == (303, "/docs")
        cookie = response.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert TOKEN not in cookie
        assert client.get("/").status_code == 200
        name, value = cookie.partition(";")[0].split("=", 1)
        assert client.post("/logout", follow_redirects=False).status_code == 303
        assert client.get("/", follow_redirects=False).status_code == 303
        again = client.get("/", headers={"cookie": f"{name}={value}"}, follow_redirects=False)
        assert again.status_code == 303  # a copy of the cookie has ended, too

    def test_a_wrong_token_gives_no_cookie_and_attempts_are_limited(self, serve, filled):
        client = serve(filled, policy_for("0.0.0.0", TOKEN, failures=2), headers={"origin": "http://localhost"})
        response = [client.post("/login", data={"token": "guess"}) for _ in range(3)]
        assert [t.status_code for t in response] == [403, 403, 429]
        assert not any("set-cookie" in t.headers for t in response)
        for _ in range(5):  # right ones are not counted, and never locked out
            assert client.post("/login", data={"token": TOKEN}, follow_redirects=False).status_code == 303

    @pytest.mark.parametrize(
        "to", ["//evil.example", "https://evil.example", "/\\evil.example", "\\/evil", "/a\r\nb", ""]
    )
    def test_a_login_redirects_to_this_server_only(self, serve, filled, to):
        client = serve(filled, OPEN, headers={"origin": "http://localhost"})
        response = client.post("/login", data={"token": TOKEN, "to": to}, follow_redirects=False)
        assert response.headers["location"] == "/"


class TestOtherSites:
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": "http://localhost:4200"},
            {"origin": "http://localhost", "sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site", "x-iadbe": "1"},
            {"origin": "https://evil.example", "x-iadbe": "1"},
        ],
    )
    def test_unsafe_requests_are_refused(self, serve, filled, headers):
        client = serve(filled, headers=headers)
        response = client.post("/api/v1/jobs", json={"grid": {"detectors": ["padim"], "data": ["toy"]}})
        assert response.status_code == 403
        assert client.server.queue.list_jobs()[1] == 0

    def test_not_even_with_a_cookie(self, serve, filled):
        client = serve(filled, OPEN, headers={})
        client.cookies.set(security.COOKIE, client.server.sessions.create())
        assert client.get("/api/v1/jobs").status_code == 200
        assert client.post("/api/v1/jobs", json={}, headers={"origin": "https://evil.example"}).status_code == 403
        assert client.post("/api/v1/jobs", json={}, headers={"origin": "http://localhost"}).status_code == 422

    @pytest.mark.parametrize(
        "headers", [{"origin": "http://localhost"}, {"origin": "https://localhost"}, {"x-iadbe": "1"}]
    )
    def test_own_pages_and_programs_can(self, serve, filled, headers):
        assert serve(filled, headers=headers).post("/api/v1/jobs", json={}).status_code == 422

    def test_the_token_in_the_header_is_enough(self, serve, filled):
        client = serve(filled, OPEN, headers={**BEARER, "origin": "https://app.example"})
        assert client.post("/api/v1/jobs", json={}).status_code == 422

    def test_resources_cannot_be_embedded(self, client):
        site = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
        assert client.get("/api/v1/runs", headers=site).status_code == 403
        page = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
        assert client.get("/", headers=page).status_code == 200
        assert client.get("/", headers={**page, "sec-fetch-dest": "iframe"}).status_code == 403
        old = {"origin": "http://localhost:4200", "sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}
        assert client.get("/api/pie-data", headers=old).status_code == 200
        assert client.get("/api/v1/runs", headers=old).status_code == 403

    def test_no_cors_headers_are_sent(self, client):
        asks = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        response = client.options("/api/v1/jobs", headers={**asks, "access-control-request-headers": "x-iadbe"})
        assert not [h for h in response.headers if h.startswith("access-control")]
        response = client.get("/api/v1/runs", headers={"origin": "http://localhost:4200"})
        assert "access-control-allow-origin" not in response.headers

    def test_the_old_front_end_may_read_the_old_paths(self, client):
        response = client.get("/api/pie-data", headers={"origin": "http://localhost:4200"})
        assert response.headers["access-control-allow-origin"] == "http://localhost:4200"
        assert (
            "access-control-allow-origin"
            not in client.get("/api/pie-data", headers={"origin": "https://x.example"}).headers
        )


class TestSize:
    def test_a_long_request_is_refused_before_it_is_read(self, serve, filled):
        client = serve(filled, Policy(body=1000))
        response = client.post("/api/v1/jobs", content=b"x" * 1001, headers={"content-type": "application/json"})
        assert response.status_code == 413

    def test_a_wrong_content_length_does_not_help(self, serve, filled):
        client = serve(filled, Policy(body=1000))

        def endless():
            for _ in range(20):
                yield b'{"grid": {' + b" " * 200

        response = client.post("/api/v1/jobs", content=endless(), headers={"content-type": "application/json"})
        assert "content-length" not in response.request.headers
        assert response.status_code == 413
        assert response.headers["content-type"] == "application/problem+json"
        assert client.post("/api/v1/jobs", content=b"{}", headers={"content-length": "-1"}).status_code in (400, 413)

    def test_uploads_have_their_own_limits(self, serve, filled):
        client = serve(filled, Policy(body=1000, upload=5000))
        files = {"file": ("x.zip", b"x" * 3000)}
        assert client.post("/api/v1/datasets", data={"name": "mine"}, files=files).status_code == 422
        files = {"file": ("x.zip", b"x" * 7000)}
        assert client.post("/api/v1/datasets", data={"name": "mine"}, files=files).status_code == 413


class TestBrowsers:
    @pytest.mark.parametrize("path", ["/", "/api/v1/runs", "/api/v1/none", "/static/web.css", "/login"])
    def test_security_headers(self, client, path):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
            assert part in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cross-origin-resource-policy"] == "same-origin"

    def test_security_headers_of_errors(self, client, monkeypatch):
        response = client.get("/", headers={"host": "evil.example"})
        assert "content-security-policy" in response.headers
        monkeypatch.setattr(client.server.queue, "list_jobs", lambda *a, **k: {}["gone"])
        response = client.get("/api/v1/jobs")
        assert response.status_code == 500
        assert "content-security-policy" in response.headers

    def test_no_page_has_inline_scripts_or_styles(self, client):
        from iadbe.dashboard.layout import PAGES

        for path in ("/login", *(path for path, _ in PAGES)):
            text = client.get(path).text
            assert "<style" not in text
            assert " style=" not in text
            assert "http://" not in text.replace("http://www.w3.org", "")
            assert "https://" not in text
            tags = [tag.partition(">")[0] for tag in text.split("<script")[1:]]
            assert all("src=" in tag or 'type="application/json"' in tag for tag in tags)  # the latter is data

    def test_web_sockets_are_refused(self, client):
        from starlette.testclient import WebSocketDisconnect

        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/v1/events"):
            pass


@pytest.mark.parametrize("path", ["/", "/runs", "/login", "/api/v1/runs", "/api/v1/none", "/static/web.css", "/none"])
def test_head_is_answered_as_get_without_a_body(client, path):
    asked, got = client.head(path), client.get(path)
    assert (asked.status_code, asked.content) == (got.status_code, b"")
    assert asked.headers.get("content-type") == got.headers.get("content-type")
    assert asked.headers["x-frame-options"] == "DENY"
    assert got.content
