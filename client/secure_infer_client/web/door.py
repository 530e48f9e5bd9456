"""Who is let in: the page that was opened by the printed address, and nobody else on this machine or the web.

The token is in the path, `http://127.0.0.1:PORT/TOKEN/`, and every address on the page is relative to it. So there is no
cookie, which a browser would send to every other port of this machine and with requests of other sites; and whoever does
not know the address can neither read nor ask. A page of another site under a name that resolves to this machine (DNS
rebinding) is stopped by its Host header.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus

TOKEN_BYTES = 32


class Refused(Exception):
    """status, and one sentence for whoever asked."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


@dataclass(frozen=True)
class Door:
    """hosts: what the Host header may be, "127.0.0.1:8765" say."""

    hosts: Sequence[str]
    token: str = field(default_factory=lambda: secrets.token_urlsafe(TOKEN_BYTES), repr=False)

    @property
    def url(self) -> str:
        return f"http://{self.hosts[0]}/{self.token}/"

    def admit(self, method: str, path: str, headers: Message) -> str:
        """The path after the token; raises Refused."""
        host = self._host(headers)
        token, slash, rest = path.removeprefix("/").partition("/")
        if not slash or not secrets.compare_digest(token.encode(), self.token.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, "Open the address that `secure-infer web` printed.")
        if method == "POST":
            self._same_origin(host, headers)
        else:
            self._navigation_or_own(headers)
        return rest

    def _host(self, headers: Message) -> str:
        given = headers.get_all("Host") or []
        if len(given) != 1 or given[0].lower() not in self.hosts:
            raise Refused(HTTPStatus.MISDIRECTED_REQUEST, f"This page is served at {self.hosts[0]} alone.")
        return str(given[0]).lower()

    @staticmethod
    def _same_origin(host: str, headers: Message) -> None:
        if headers.get_all("Origin") != [f"http://{host}"] or _site(headers) not in ("same-origin", ""):
            raise Refused(HTTPStatus.FORBIDDEN, "Only the page itself may ask.")

    @staticmethod
    def _navigation_or_own(headers: Message) -> None:
        """Anybody may lead a browser here who knows the address; no other page may embed or fetch what is served."""
        led = (headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest")) == ("navigate", "document")
        if not led and _site(headers) not in ("same-origin", "none", ""):
            raise Refused(HTTPStatus.FORBIDDEN, "Other pages may not load this one's files.")


def _site(headers: Message) -> str:
    """Where the browser says that the request comes from; "" for software that does not say."""
    return str(headers.get("Sec-Fetch-Site", ""))
