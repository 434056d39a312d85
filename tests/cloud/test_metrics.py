from gridtokenx_cloud.metrics import (
    Figure,
    access_figures,
    connection_figures,
    exposition,
    ingest_figures,
    process_figures,
)


def test_figures_of_one_name_stand_together_under_one_head() -> None:
    text = exposition(
        [
            Figure("queue", "Rows", 1, {"state": "waiting"}),
            Figure("minted_wh_total", "Wh", 2**53 + 1),
            Figure("queue", "Rows", 2, {"state": "parked"}),
        ]
    )

    assert text.splitlines() == [
        "# HELP gridtokenx_minted_wh_total Wh",
        "# TYPE gridtokenx_minted_wh_total counter",
        "gridtokenx_minted_wh_total 9007199254740993",
        "# HELP gridtokenx_queue Rows",
        "# TYPE gridtokenx_queue gauge",
        'gridtokenx_queue{state="waiting"} 1',
        'gridtokenx_queue{state="parked"} 2',
    ]


def test_a_label_cannot_break_its_line() -> None:
    text = exposition([Figure("x", "X", 1, {"a": 'say "hi"\n\\'})])

    assert text.splitlines()[-1] == r'gridtokenx_x{a="say \"hi\"\n\\"} 1'


def test_a_role_in_trouble_is_down_and_its_restarts_are_counted() -> None:
    figures = process_figures("1.0", {"ingest": "no broker", "api": None}, {"ingest": 3})

    lines = exposition(figures).splitlines()

    assert 'gridtokenx_service_up{service="ingest"} 0' in lines
    assert 'gridtokenx_service_up{service="api"} 1' in lines
    assert 'gridtokenx_service_restarts_total{service="ingest"} 3' in lines


def test_readings_are_counted_by_outcome_and_reason_and_remarks_by_name() -> None:
    totals = {"accepted": 5, "rejected": 2, "rejected:BadSignature": 2, "remark:stuck": 1}

    lines = exposition(ingest_figures(totals | {"sample": 9})).splitlines()

    name = "gridtokenx_meter_readings_processed_total"
    assert [line for line in lines if not line.startswith("#")] == [
        f'{name}{{outcome="accepted",reason=""}} 5',
        f'{name}{{outcome="rejected",reason="BadSignature"}} 2',
        'gridtokenx_reading_remarks_total{remark="stuck"} 1',
    ]


def test_who_was_kept_out_is_counted_by_surface_and_reason() -> None:
    text = exposition(access_figures("http", {"wrong_secret": 10, "guesses": 2, "requests": 3}))

    assert 'gridtokenx_auth_failures_total{surface="http"} 12' in text
    assert 'gridtokenx_rate_limited_total{surface="http",reason="guesses"} 2' in text
    assert 'gridtokenx_rate_limited_total{surface="http",reason="requests"} 3' in text


def test_connections_are_counted_by_role() -> None:
    text = exposition(connection_figures(["owner", "admin", "owner"]))

    assert 'gridtokenx_websocket_connections_active{role="owner"} 2' in text
    assert 'gridtokenx_websocket_connections_active{role="admin"} 1' in text
