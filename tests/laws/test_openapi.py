"""The API against its OpenAPI document: every response is a documented one."""

import pytest

import fake_results

pytest.importorskip("fastapi", reason="the server needs the extra web")

from iadbe.dashboard.pages import install
from iadbe.running.store import Store
from iadbe.web.app import TAGS, build
from iadbe.web.policy import policy_for

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
hypothesis = pytest.importorskip("hypothesis")

from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

EXAMPLES = 30  # generated requests for each operation
CSRF = {"X-IADBE": "1"}
# the names in a store are not part of the document, so a valid request may be refused
EXCLUDED = [positive_data_acceptance]


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """The document of a server with a few runs, one of them failed, and no worker, so that jobs only wait."""
    store = Store(tmp_path_factory.mktemp("described") / "runs")
    fake_results.save(store, "patchcore", task="bottle", values={"image_auroc": 0.9, "pixel_auroc": 0.95})
    store.save(
        fake_results.result("padim", "bottle", {"image_auroc": 0.8}, scores=fake_results.scores("bottle", seed=1))
    )
    store.save(fake_results.result("stfpm", "bottle", error="killed at 4.1 GB: memory limit 4.0 GB"))
    application = build(store, policy_for("127.0.0.1", "", ("testserver",)), pages=install)
    application.app.state.server.shutting_down.set()  # event streams end at once
    return schemathesis.openapi.from_asgi("/api/v1/openapi.json", application)


@pytest.mark.parametrize("tag", TAGS)
def test_responses_match_the_specification(document, tag):
    """Valid and invalid generated requests get a documented response, and never a 500."""
    operations = [found.ok() for found in document.get_all_operations() if tag in found.ok().tags]
    assert operations
    for operation in operations:
        _check_operation(operation)


def _check_operation(operation):
    @hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(case=operation.as_strategy())
    def check(case):
        case.call_and_validate(headers=CSRF, excluded_checks=EXCLUDED)

    check()


def test_every_operation_documents_errors(document):
    for path, operations in document.raw_schema["paths"].items():
        for method, operation in operations.items():
            wrong = [code for code in operation["responses"] if code.startswith("4")]
            assert wrong, f"{method} {path}"
