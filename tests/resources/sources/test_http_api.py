"""APIs page by page: every way to follow them, and what stops them."""

import datetime as dt
import email.utils
import json
import time
from typing import Any

import dagster as dg
import pytest

from resources.sources import HttpApi, HttpApiByDay, SourceError, SourceUnavailable
from tests.resources.sources.api import Answer, Api, Request, broken, cut_off, served, too_many
from tests.resources.sources.conftest import CANARY

DAY = dt.date(2020, 5, 7)
NEXT = DAY + dt.timedelta(days=1)
IDS = [str(n) for n in range(45)]


def rows(number: int = 45) -> list[dict[str, Any]]:
    return [
        {"id": n, "at": f"2020-05-{7 + n // 20:02d}T{n % 20:02d}:00:00Z", "who": {"name": f"n{n}"}}
        for n in range(number)
    ]


WAYS: dict[str, dict[str, Any]] = {
    "link": {}, "body": {"next_link": "links.next"}, "page": {"page_param": "page"},
    "offset": {"offset_param": "offset"}, "cursor": {"next_cursor": "next_cursor"},
}  # fmt: skip


def api(url: str, **given: Any) -> HttpApi:
    return HttpApi(
        **{"url": url, "path": "/v1/payments", "records": "data.items", "key": "id", "backoff_s": 0.01, **given}
    )


def by_day(url: str, **given: Any) -> HttpApiByDay:
    fixed = {"url": url, "path": "/v1/payments", "records": "data.items", "key": "id", "backoff_s": 0.01}
    return HttpApiByDay(**{**fixed, **given})


# -- pages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", WAYS)
@pytest.mark.parametrize("number", [0, 10, 45])
def test_all_pages_are_read_in_order(style, number):
    with served(Api(rows(number), style=style)) as server:
        read = api(server.url, **WAYS[style]).read()
    assert list(read.get("id", [])) == IDS[:number]
    if number:
        assert read.iloc[3].to_dict() == {"id": "3", "at": "2020-05-07T03:00:00Z", "who.name": "n3"}


def test_a_list_alone_is_a_page_and_numbers_stay_as_they_are_written():
    body = b'[{"n": 1.50, "big": 12345678901234567890, "on": true, "tags": [1, "a"], "no": null}]'
    with served(Api([], faults={0: lambda *_: Answer(body)})) as server:
        read = api(server.url, records="", key="").read()
    assert read.iloc[0].fillna("missing").to_dict() == {
        "n": "1.50", "big": "12345678901234567890", "on": "True", "tags": '[1, "a"]', "no": "missing",
    }  # fmt: skip


def test_a_link_may_be_relative():
    def relative(request: Request, answer: Answer) -> Answer:
        return Answer(answer.body, 200, {"Link": '</v1/payments?offset=10>; rel="next"'})

    with served(Api(rows(15), faults={0: relative})) as server:
        assert list(api(server.url).read()["id"]) == IDS[:15]


def again(request: Request, answer: Answer) -> Answer:
    return Answer(answer.body, 200, {"Link": f'<http://{request.headers["host"]}/v1/payments?offset=10>; rel="next"'})


def first_page(request: Request, answer: Answer) -> Answer:
    return Answer(
        json.dumps({"data": {"items": rows(10)}, "next_cursor": f"c{len(request.query.get('cursor', ''))}"}).encode()
    )


def stuck_cursor(request: Request, answer: Answer) -> Answer:
    return Answer(json.dumps({"data": {"items": rows(10)}, "next_cursor": "7"}).encode())


@pytest.mark.parametrize(
    ("style", "fault"), [("link", again), ("page", first_page), ("offset", first_page), ("cursor", stuck_cursor)]
)
@pytest.mark.parametrize("key", ["id", ""])
def test_pages_that_repeat_for_ever_are_found(style, fault, key):
    with served(Api(rows(), style=style, faults=dict.fromkeys(range(1000), fault))) as server:
        with pytest.raises(SourceError, match=r"its pages repeat: |has the same rows as one before") as refused:
            api(server.url, key=key, **WAYS[style]).read()
        assert refused.type is SourceError
        assert len(server.requests) <= 12


def test_empty_pages_that_repeat_for_ever_are_found():
    def empty(request: Request, answer: Answer) -> Answer:
        return Answer(b'{"data": {"items": []}}', 200, {"Link": '</v1/payments?offset=10>; rel="next"'})

    refused = pytest.raises(SourceError, match="its pages repeat: page 3 is one that was read before")
    with served(Api(rows(), faults=dict.fromkeys(range(99), empty))) as server, refused:
        api(server.url).read()


def test_more_pages_than_declared_are_refused():
    with served(Api(rows(), size=5)) as server, pytest.raises(SourceError, match=r"more than 8 pages \(max_pages\)"):
        api(server.url, max_pages=8).read()


def test_a_page_that_comes_twice_lands_once():
    def twice(request: Request, answer: Answer) -> Answer:
        link = f'<http://{request.headers["host"]}/v1/payments?offset=10&again=1>; rel="next"'
        return Answer(answer.body, 200, {"Link": link})

    with served(Api(rows(), faults={1: twice})) as server:
        assert list(api(server.url).read()["id"]) == IDS
        assert len(server.requests) == 6


def test_a_row_with_two_states_is_named_unless_the_later_wins():
    data = [{"id": 1, "v": "old", "updated_at": "2020-05-07T10:00:00Z"}, {"id": 2, "v": "b", "updated_at": "x"},
            {"id": 1, "v": "new", "updated_at": "2020-05-07T11:00:00+00:00"}]  # fmt: skip
    for order in (data, data[::-1]):
        with served(Api(order, size=1)) as server:
            with pytest.raises(
                SourceError, match="the row with id=1 was on a page before with other values; declare latest="
            ):
                api(server.url).read()
            read = api(server.url, latest="updated_at").read()
        assert dict(zip(read["id"], read["v"], strict=True)) == {"1": "new", "2": "b"}
    same = [{**row, "updated_at": "2020-05-07"} for row in data]
    with served(Api(same)) as server, pytest.raises(SourceError, match="but the same updated_at"):
        api(server.url, latest="updated_at").read()


def test_rows_that_come_between_the_pages_are_noticed_by_the_total():
    server = Api(rows(25), style="offset")

    def inserted(request: Request, answer: Answer) -> Answer:
        server.rows.insert(0, {"id": 99, "at": "2020-05-09T00:00:00Z", "who": {"name": "new"}})
        return answer

    server.faults = {0: inserted}
    with served(server):
        with pytest.raises(
            SourceUnavailable, match=r"the server counts 25 and then 26 rows, and 25 came: rows changed"
        ):
            api(server.url, offset_param="offset", total="total").read()
        assert len(api(server.url, offset_param="offset", total="total").read()) == 26


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"records": "data.rows"}, r"the answer has no 'data\.rows' \(it has: items\)"),
        ({"records": "data"}, "'data' is not a list"),
        ({"key": "uid"}, "a row has no 'uid', the declared key"),
        ({"total": "count"}, r"the answer has no 'count' \(it has: data, total\)"),
        ({"path": "/v2/payments"}, "the server answers 404 Not Found; check the source's url and path"),
        ({"page_param": "page", "offset_param": "offset"}, "declare one of page_param, offset_param"),
        ({"url": "shop"}, "the source's url is not one of an API"),
    ],
)
def test_an_answer_of_another_form_is_named(given, words):
    with served(Api(rows())) as server, pytest.raises(SourceError, match=words):
        api(**{"url": server.url, **given}).read()


def test_an_answer_that_is_no_json_is_named():
    page = lambda *_: Answer(b"<html>Log in</html>", 200, {"Content-Type": "text/html"})  # noqa: E731
    with (
        served(Api(rows(), faults={0: page})) as server,
        pytest.raises(SourceError, match=r"the answer is not JSON \(text/html\); check the source's url and path"),
    ):
        api(server.url).read()


# -- faults ------------------------------------------------------------------------------------------------------------


def wait_until(request: Request, answer: Answer) -> Answer:
    return Answer(b"", 429, {"Retry-After": email.utils.formatdate(time.time() - 60, usegmt=True)})


@pytest.mark.parametrize("fault", [cut_off, broken, too_many, wait_until])
def test_a_request_that_fails_is_tried_again(fault):
    with served(Api(rows(), faults={1: fault, 2: fault})) as server:
        assert list(api(server.url).read()["id"]) == IDS


@pytest.mark.parametrize(
    ("header", "at_least", "at_most"),
    [("7", 7, 7), (email.utils.formatdate(4_000_000_000 + 30, usegmt=True), 28, 32), ("soon", 0, 0.1)],
)
def test_the_wait_that_a_server_asks_for_is_kept(monkeypatch, header, at_least, at_most):
    waits: list[float] = []
    monkeypatch.setattr("resources.sources.http_requests.time.sleep", waits.append)
    fault = lambda *_: Answer(b"", 429, {"Retry-After": header})  # noqa: E731
    # A date is read by the server's own clock, however wrong it is.
    with served(Api(rows(5), faults={0: fault}, shift_s=4_000_000_000 - time.time())) as server:
        api(server.url).read()
    assert at_least <= waits[0] <= at_most


@pytest.mark.parametrize("fault", [cut_off, broken, too_many])
def test_a_source_that_stays_down_is_unavailable(fault):
    with served(Api(rows(), faults=dict.fromkeys(range(1, 99), fault))) as server:
        with pytest.raises(SourceUnavailable, match="; tried 3 times"):
            api(server.url, tries=3).read()
        assert len(server.requests) == 4
    with pytest.raises(SourceUnavailable, match=r"no answer \(ConnectError.*tried 2 times"):
        api(server.url, tries=2).read()


def test_all_pages_have_one_limit_of_time():
    def long(request: Request, answer: Answer) -> Answer:
        return Answer(b"", 503, {"Retry-After": "3600"})

    with (
        served(Api(rows(), faults={0: long})) as server,
        pytest.raises(SourceUnavailable, match=r"503 .*; the next try, in 3600 s, would be after 60 s \(total_s\)"),
    ):
        api(server.url, total_s=60).read()
    with (
        served(Api(rows(), size=1)) as server,
        pytest.raises(SourceUnavailable, match=r"not all pages came within 0\.01 s \(total_s\)"),
    ):
        api(server.url, total_s=0.01).read()


def test_a_server_that_does_not_answer_in_time_is_unavailable():
    def asleep(request: Request, answer: Answer) -> Answer:
        time.sleep(1)
        return answer

    with (
        served(Api(rows(), faults=dict.fromkeys(range(9), asleep))) as server,
        pytest.raises(SourceUnavailable, match=r"no answer \(ReadTimeout"),
    ):
        api(server.url, timeout_s=0.1, tries=1).read()


def test_a_host_that_does_not_exist_is_named():
    with pytest.raises(SourceError, match=r"there is no host 'nowhere\.invalid'; check the source's url"):
        api("http://nowhere.invalid").read()


# -- tokens ------------------------------------------------------------------------------------------------------------


def test_a_token_comes_from_the_environment_and_is_never_shown(monkeypatch):
    monkeypatch.setenv("SHOP_TOKEN", CANARY)
    source = lambda url, **given: api(url, token=dg.EnvVar("SHOP_TOKEN"), **given)  # noqa: E731
    with served(Api(rows(), token=CANARY)) as server:
        assert len(source(server.url).read()) == 45
        assert len(source(server.url).process_config_and_initialize().read()) == 45
        assert CANARY not in repr(source(server.url).process_config_and_initialize())
        assert CANARY not in "".join(request.path for request in server.requests)
    with served(Api(rows(), token="another")) as server:
        with pytest.raises(SourceError, match="401 Unauthorized; set the source's token=") as refused:
            source(server.url).read()
        with pytest.raises(SourceError, match="401 Unauthorized"):
            by_day(server.url, token=CANARY, arrived="at").landed_until()
    assert CANARY not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    monkeypatch.delenv("SHOP_TOKEN")
    with pytest.raises(SourceError, match="the environment variable SHOP_TOKEN is not set"):
        source("http://127.0.0.1:1").read()


def test_a_token_may_have_a_header_of_its_own():
    with served(Api(rows(5))) as server:
        api(server.url, token=CANARY, token_header="X-Api-Key").read()
        assert server.requests[0].headers["x-api-key"] == CANARY
        assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("header", ["Authorization", "X-Api-Key"])
def test_another_host_never_gets_the_token(header):
    with served(Api(rows())) as other:

        def linked(request: Request, answer: Answer) -> Answer:
            return Answer(answer.body, 200, {"Link": f'<{other.url}/v1/payments?offset=10>; rel="next"'})

        elsewhere = lambda *_: Answer(b"", 302, {"Location": f"{other.url}/v1/payments"})  # noqa: E731
        for fault in (elsewhere, linked):
            with served(Api(rows(), faults={0: fault})) as server:
                assert len(api(server.url, token=CANARY, token_header=header).read()) == 45
                assert CANARY in server.requests[0].headers[header.lower()]
    assert other.requests
    assert not any(CANARY in str(request.headers) for request in other.requests)
    with served(Api(rows(), token=CANARY)) as other:
        elsewhere = lambda *_: Answer(b"", 302, {"Location": f"{other.url}/v1/payments"})  # noqa: E731
        refused = pytest.raises(SourceError, match=r"401 .*; it redirects to .*, which does not get the token")
        with served(Api(rows(), faults={0: elsewhere})) as server, refused:
            api(server.url, token=CANARY).read()


def test_redirects_end():
    loop = lambda request, _: Answer(b"", 302, {"Location": request.path})  # noqa: E731
    with (
        served(Api(rows(), faults=dict.fromkeys(range(99), loop))) as server,
        pytest.raises(SourceError, match="more than 5 redirects"),
    ):
        api(server.url).read()


# -- days --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{"since": "since", "until": "until"}, {}])
def test_a_day_has_the_rows_that_arrived_on_it(given):
    with served(Api(rows())) as server:
        source = by_day(server.url, arrived="at", **given)
        assert list(source.land(DAY)["id"]) == IDS[:20]
        assert list(source.land(NEXT)["id"]) == IDS[20:40]
        assert len(source.land(DAY - dt.timedelta(days=1))) == 0
        if given:
            assert server.requests[0].query == {"since": "2020-05-07T00:00:00Z", "until": "2020-05-08T00:00:00Z"}


def test_bounds_that_a_server_takes_as_included_land_no_row_twice():
    def included(request: Request, answer: Answer) -> Answer:
        body = {
            "data": {"items": [row for row in rows() if request.query["since"] <= row["at"] <= request.query["until"]]}
        }
        return Answer(json.dumps(body).encode())

    with served(Api([], faults=dict.fromkeys(range(9), included))) as server:
        source = by_day(server.url, time="at", since="since", until="until")
        assert [*source.land(DAY)["id"], *source.land(NEXT)["id"]] == IDS[:40]


def test_a_row_whose_day_is_unknown_is_not_dropped_in_silence():
    with served(Api([{"id": 1, "at": "yesterday"}])) as server:
        with pytest.raises(SourceError, match=r"1 rows have no readable 'at' .*'yesterday'"):
            by_day(server.url, arrived="at").land(DAY)
        with pytest.raises(SourceError, match="the rows have no 'when'; their columns are: id, at"):
            by_day(server.url, arrived="when").land(DAY)


def test_rows_land_after_the_greatest_value_that_has_landed():
    shuffled = sorted(rows(), key=lambda row: row["id"] * 7 % 45)
    with served(Api(shuffled)) as server:
        source = by_day(server.url, cursor="id", time="at", after="after")
        assert source.growing_column() == "id"
        assert list(source.land_after(DAY, None, None)["id"]) == IDS[:20]
        assert list(source.land_after(NEXT, "19", None)["id"]) == IDS[20:40]
        assert list(source.land_after(NEXT, "19", "25")["id"]) == IDS[20:26]
        assert len(source.land_after(NEXT, "44", None)) == 0
        assert server.requests[-1].query["after"] == "44"
        assert list(by_day(server.url, cursor="id").land_after(DAY, "9", None)["id"]) == IDS[10:]


@pytest.mark.parametrize(
    ("given", "words"),
    [({}, "comes from nowhere"), ({"arrived": "at", "cursor": "id"}, "comes from arrived and cursor")],
)
def test_a_stream_that_does_not_say_which_day_is_refused(given, words):
    with pytest.raises(SourceError, match=f"{words}; declare one of"):
        by_day("http://127.0.0.1:1", **given).landed_until()


def test_labels_have_a_path_of_their_own():
    with served(Api(rows())) as server:
        source = by_day(server.url, arrived="at", path="/v1/other", labels="/v1/payments", labels_arrived="at")
        assert list(source.land_labels(DAY)["id"]) == IDS[:20]
        with pytest.raises(SourceError, match="its labels land together with its rows"):
            by_day(server.url, arrived="at").land_labels(DAY)


@pytest.mark.parametrize(
    ("theirs", "settle", "until"),
    [
        (dt.datetime(2020, 5, 8, 0, 9, 59), 10, DAY - dt.timedelta(days=1)),
        (dt.datetime(2020, 5, 8, 0, 10, 1), 10, DAY),
        (dt.datetime(2020, 5, 8, 0, 0, 1), 0, DAY),
        (dt.datetime(2020, 5, 9, 5, 0, 0), 0, DAY),  # ours is earlier
    ],
)
def test_a_day_is_over_by_both_clocks(monkeypatch, theirs, settle, until):
    monkeypatch.setattr("resources.sources.http_api.utc_now", lambda: dt.datetime(2020, 5, 8, 12, tzinfo=dt.UTC))
    shift = theirs.replace(tzinfo=dt.UTC).timestamp() - time.time()
    with served(Api(rows(), shift_s=shift + 0.5)) as server:
        assert by_day(server.url, arrived="at", settle_minutes=settle).landed_until() == until


def test_columns_that_json_leaves_out_may_be_declared():
    with served(Api([{"id": 1}])) as server:
        assert api(server.url, optional=["refund.at"]).read()["refund.at"].isna().all()
