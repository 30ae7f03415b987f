"""What a status other than 200 says of the request and of the server (RFC 9110, 6585, 4918, 8470).

======================  ===================================================================================
Meaning                 Statuses
======================  ===================================================================================
the request's fault     every 4xx that is not below: 400, 402, 406, 410 to 418, 422, 424, 426, 428, 431, 451
the server's set-up     401, 403, 404, 405, 407, 421: another server may serve the same request
the server's moment     408, 409, 423, 425: the same request may succeed a little later, here or elsewhere
back-pressure           429
loading or full         503
the server's failure    every other 5xx
no answer               1xx as the last word, 2xx without an answer (201, 202, 204, 206), 3xx
======================  ===================================================================================

The first two and the last are refusals: each other server is asked once. Whether the request or the server is
at fault shows when another server answers.
"""

from __future__ import annotations

from http import HTTPStatus

from lbrun.attempt import FailureKind

MOMENTARY = frozenset({408, 409, 423, 425})
SET_UP = frozenset({401, 403, 404, 405, 407, 421})


def kind_of_status(status: int) -> FailureKind:
    """The failure kind of any status but 200."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return FailureKind.HTTP_429
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return FailureKind.HTTP_503
    if status in MOMENTARY:
        return FailureKind.HTTP_MOMENT
    return FailureKind.HTTP_5XX if 500 <= status <= 599 else FailureKind.HTTP_4XX
