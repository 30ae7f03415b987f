"""The data plane: attempts go out over HTTP/1.1 and come back as results or failures.

Knows neither the configuration, nor LoadGen, nor what is done about a failure.
"""

from lbrun.transport.descriptors import raise_descriptor_limit
from lbrun.transport.endpoint import Endpoint, make_endpoint, make_ssl_context
from lbrun.transport.settings import Limits, Timeouts
from lbrun.transport.worker import InlineWorker

__all__ = [
    "Endpoint",
    "InlineWorker",
    "Limits",
    "Timeouts",
    "make_endpoint",
    "make_ssl_context",
    "raise_descriptor_limit",
]
