"""Where a page is served, and what opens it."""

from dataclasses import dataclass
from pathlib import Path

from cled_edge.errors import OptionError, OutputError
from cled_edge.files import Reader
from cled_edge.serve.guard import LOCAL, check_token

_TOKENS = Reader(OptionError, OptionError, "give a file that holds the token alone", follow_links=True)
_MAX_TOKEN_BYTES = 4096


def not_installed(error: ImportError) -> OutputError:
    """Return the error of a page whose packages are not there."""
    return OutputError(
        f"the page needs the package {error.name}, which is not installed; pip install 'cled-edge[serve]'"
    )


@dataclass(frozen=True)
class PageAddress:
    """Where the page is served. host: an address of this machine. port: 0 is any free one. token: see `Guard`.

    OptionError for a host beyond this machine without a token: whoever reaches it could look and change.
    """

    host: str
    port: int
    token: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is not allowed."""
        if self.token is not None:
            check_token(self.token)
        elif self.host not in LOCAL:
            raise OptionError(
                f"the page is to be served at {self.host}, which others can reach; needed a token; give one, or serve "
                "it at localhost and open a tunnel: ssh -L PORT:localhost:PORT ROBOT"
            )

    @classmethod
    def parse(cls, text: str, token: str | None = None, token_file: Path | None = None) -> "PageAddress":
        """Return the address of `PORT`, `HOST:PORT` or `[IPv6]:PORT`; the host is 127.0.0.1 unless it is named.

        OptionError for another form, and for two tokens.
        """
        host, colon, port = text.rpartition(":")
        if not (port.isascii() and port.isdecimal() and int(port) <= 65535) or (colon and not host):
            raise OptionError(f"the page's address is {text!r}; needed [HOST:]PORT, such as 8080 or 0.0.0.0:8080")
        if token is not None and token_file is not None:
            raise OptionError("a token and a file with one are given; needed one of both; leave one out")
        if token_file is not None:
            token = _TOKENS.read(token_file, _MAX_TOKEN_BYTES).decode("utf-8", "replace").strip()
        return cls(host.removeprefix("[").removesuffix("]") or LOCAL[1], int(port), token)
