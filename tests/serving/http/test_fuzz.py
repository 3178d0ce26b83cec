"""Whatever is sent, the server answers as its own OpenAPI document says, and never with an error of its own."""

import http.client
import json
import re
import urllib.request

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.serving.conftest import ask

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
ROUTES = ("/v1/recommend", "/v1/score", "/v1/events", "/v1/model", "/healthz", "/readyz", "/metrics")


@pytest.mark.parametrize("route", ROUTES)
def test_answers_are_as_documented(address, route):
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    (operation,) = [one.ok() for one in schema.get_all_operations() if one.ok().path == route]

    @settings(max_examples=30, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def check(case):
        case.call_and_validate(checks=CHECKS)

    check()


MALFORMED = {
    "nothing": b"",
    "half": b'{"user_id": 1',
    "no JSON": b"\xff\xfe\x00",
    "a list": b"[1, 2]",
    "a number": b"1",
    "deep": b"[" * 100_000,
    "a huge number": b'{"user_id": 1' + b"0" * 5000 + b"}",
    "no number": b'{"user_id": 1, "context": {"hour": NaN}}',
    "endless": b'{"user_id": 1, "context": {"hour": 1e999}}',
    "half a character": b'{"user_id": "\\ud800"}',
    "half a name": b'{"user_id": 1, "context": {"\\ud800": 1}}',
    "the last year": b'{"user_id": 1, "time": "9999-12-31T23:59:59-23:59"}',
    "the first year": b'{"user_id": 1, "time": "0001-01-01T00:00:00+23:59"}',
    "an object for a list": b'{"user_id": 1, "candidates": {"item_id": 1}}',
    "an item that is no id": b'{"user_id": 1, "candidates": [{"item_id": [1]}]}',
    "zero bytes": b'{"user_id": "\\u0000"}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("route", ["/v1/recommend", "/v1/score", "/v1/events"])
def test_a_malformed_body_is_refused_and_nothing_of_the_inside_is_told(address, route, body):
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
    connection.request("POST", route, body, {"content-type": "application/json"})
    response = connection.getresponse()
    told = response.read().decode()
    connection.close()
    assert response.status in (400, 422), told
    assert set(json.loads(told)) == {"detail"}
    for inside in ("Traceback", 'File "', "site-packages", "lrm."):
        assert inside not in told


def test_the_document_and_its_page_are_served(address):
    status, document = ask(address, "/openapi.json")
    assert (status, {"/v1/recommend", "/v1/score", "/v1/events", "/v1/model"} <= set(document["paths"])) == (200, True)
    with urllib.request.urlopen(f"{address}/docs", timeout=5) as page:
        shown = page.read().decode()
    assert "/openapi.json" in shown
    loaded = re.findall(r'(?:src|href)="([^"]+)"', shown)
    assert [place for place in loaded if not place.startswith("/")] == []  # nothing from other hosts
    for place in loaded:
        with urllib.request.urlopen(f"{address}{place}", timeout=5) as one:
            assert one.status == 200
