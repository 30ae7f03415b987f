"""Request formats: how a sample becomes the bytes of a request, and the bytes of an answer a result.

Pure: fed bytes in any split, they know no sockets, no servers and no clocks, and never invent a token.
"""

from lbrun.formats.choice import FORMAT_NAMES, choose, make_format
from lbrun.formats.json_format import JsonFormat
from lbrun.formats.options import ChatOptions, FormatOptions

__all__ = ["FORMAT_NAMES", "ChatOptions", "FormatOptions", "JsonFormat", "choose", "make_format"]
