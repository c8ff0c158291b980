"""The API against its own description: whatever is asked, the answer is one that the document announces."""

import pytest

import fake_results

pytest.importorskip("fastapi", reason="the server needs the extra web")

from iadbe.dashboard.pages import install
from iadbe.running.store import Store
from iadbe.web.app import TAGS, build
from iadbe.web.rules import rules_for

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
hypothesis = pytest.importorskip("hypothesis")

from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

EXAMPLES = 30  # requests made up for each operation
TOLD = {"X-IADBE": "1"}
# what names a store, its shelves and its images have is not in the description: a well-formed request may be refused
UNTOLD = [positive_data_acceptance]


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """The description of a server with a few runs, one of them failed, and no worker: what is asked for only waits."""
    store = Store(tmp_path_factory.mktemp("described") / "runs")
    fake_results.save(store, "patchcore", task="bottle", values={"image_auroc": 0.9, "pixel_auroc": 0.95})
    store.save(
        fake_results.result("padim", "bottle", {"image_auroc": 0.8}, scores=fake_results.scores("bottle", seed=1))
    )
    store.save(fake_results.result("stfpm", "bottle", error="killed at 4.1 GB: memory limit 4.0 GB"))
    application = build(store, rules_for("127.0.0.1", "", ("testserver",)), pages=install)
    application.app.state.house.ending.set()  # streams of events end at once
    return schemathesis.openapi.from_asgi("/api/v1/openapi.json", application)


@pytest.mark.parametrize("tag", TAGS)
def test_it_keeps_its_word(document, tag):
    """Whatever schemathesis makes up, right or wrong, is answered as the description says, and never with a 500."""
    mine = [found.ok() for found in document.get_all_operations() if tag in found.ok().tags]
    assert mine
    for operation in mine:
        _tried(operation)


def _tried(operation):
    @hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(case=operation.as_strategy())
    def asked(case):
        case.call_and_validate(headers=TOLD, excluded_checks=UNTOLD)

    asked()


def test_every_operation_says_how_it_fails(document):
    for path, operations in document.raw_schema["paths"].items():
        for method, operation in operations.items():
            wrong = [code for code in operation["responses"] if code.startswith("4")]
            assert wrong, f"{method} {path}"
