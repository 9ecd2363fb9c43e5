"""The parts of aiohttp that nobody promised us: when they change, and when they can go."""

import inspect

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

#: What `http_server`, `connection` and `repeating` of `app.gateway` use beside the documented API.
USED = {
    web.AppRunner: ("_make_server",),
    web.Server: ("__call__", "connections"),
    RequestHandler: (
        "connection_made",
        "connection_lost",
        "data_received",
        "start",
        "handle_error",
        "finish_response",
        "close",
        "peername",
        "_process_keepalive",
    ),
}
#: What `app.api.delivery` sets of an answer that it has written.
OF_ANSWERS = {"_eof_sent": False, "_keep_alive": None}
SLOTS = (
    "_messages",
    "_request_count",
    "_waiter",
    "_close",
    "_force_close",
    "_keepalive_timeout",
    "_next_keepalive_close_time",
)


def test_what_is_used_is_there() -> None:
    for where, names in USED.items():
        assert not [name for name in names if not hasattr(where, name)], where
    assert set(SLOTS) <= set(RequestHandler.__slots__)
    answer = web.Response()
    assert {name: getattr(answer, name) for name in OF_ANSWERS} == OF_ANSWERS


def test_aiohttp_still_has_no_hook_for_the_class_of_connections() -> None:
    """Once aio-libs/aiohttp#3287 is resolved, or a head has a time limit, ours can go."""
    parameters = set(inspect.signature(web.Server.__init__).parameters)
    assert parameters == {
        "self",
        "handler",
        "request_factory",
        "handler_cancellation",
        "loop",
        "kwargs",
    }
    timeouts = {
        name for name in inspect.signature(RequestHandler.__init__).parameters if "time" in name
    }
    assert timeouts == {"keepalive_timeout", "lingering_time", "timeout_ceil_threshold"}
