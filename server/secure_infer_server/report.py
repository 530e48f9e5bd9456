"""A report of `--check-config`: what is on, what is off, what is seldom meant, what is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field

from secure_infer import address as addresses
from secure_infer.address import is_loopback
from secure_infer.errors import SecureInferError, SettingsError
from secure_infer_server import modes
from secure_infer_server.callers import own, transport
from secure_infer_server.callers.credentials import server_credentials
from secure_infer_server.tls import Tls

Part = tuple[bool, str]
"""Whether it is on, and how, in words."""


@dataclass
class Report:
    """Lines by part; errors are what the process would not start with."""

    on: dict[str, str] = field(default_factory=dict)
    off: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def look(self, parts: Mapping[str, Callable[[], Part]]) -> None:
        """Put each part where it belongs; what it raises is an error."""
        for name, part in parts.items():
            try:
                on, text = part()
            except SecureInferError as error:
                self._add(error.message)
            except (OSError, RuntimeError) as error:  # a directory where a file should be, a loop of links
                self._add(f"{name}: {_unusable(error)}")
            else:
                (self.on if on else self.off)[name] = text

    def require(self, sound: Callable[[], None]) -> None:
        """What it raises is an error."""
        try:
            sound()
        except SettingsError as error:
            self._add(error.message)

    def _add(self, error: str) -> None:
        if error not in self.errors:  # two parts may fail for one file
            self.errors.append(error)

    def lines(self) -> Iterator[str]:
        """As read by people."""
        for word, parts in (("on ", self.on), ("off", self.off)):
            yield from (f"{word}      {name}: {text}" for name, text in parts.items())
        for word, texts in (("warning", self.warnings), ("error  ", self.errors)):
            yield from (f"{word}  {text}" for text in texts)

    def text(self, *, as_json: bool) -> str:
        """What the command prints."""
        return json.dumps({"ok": not self.errors, **asdict(self)}) if as_json else "\n".join(self.lines())

    @property
    def status(self) -> int:
        """The command's exit status."""
        return 2 if self.errors else 0


def _unusable(error: OSError | RuntimeError) -> str:
    """In words, without what a file holds."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be used ({error.strerror})"
    return f"its files cannot be used ({type(error).__name__})"


def unread(variables: Iterable[str]) -> Iterator[str]:
    """Warnings of environment variables that nothing reads."""
    return (f"{name} is set, and no flag reads it: misspelt, or meant for another command?" for name in variables)


def tls_part(tls: Tls | None) -> Part:
    if tls is None:
        return False, "plaintext, on loopback alone"
    server_credentials(tls.certificate, tls.key, tls.client_ca)
    return (
        True,
        f"{tls.certificate}, {'of clients that a CA signed' if tls.client_ca else 'without client certificates'}",
    )


def tls_warnings(tls: Tls | None, *, mutual: bool = False) -> Iterator[str]:
    """Of what holds and is seldom meant. mutual: whether those who come have its CA, as between parties and dealer."""
    if tls is None:
        return
    yield from own.ending(tls.certificate)
    if tls.client_ca is not None:
        yield from own.no_authority(tls.client_ca)
    if mutual and tls.client_ca is not None:
        yield from own.foreign(tls.certificate, tls.client_ca)
    if os.environ.get(transport.VARIABLE) != transport.SUITE:
        yield f"TLS 1.2 is taken as well: {transport.VARIABLE} is set to something else; unset it"
    yield from modes.warnings([tls.key], [tls.certificate, tls.client_ca])


def metrics_part(address: str | None) -> Part:
    return (
        (False, "no figures, no probes") if address is None else (True, f"http://{address}/metrics, /live and /ready")
    )


def metrics_warnings(host: str, metrics: str | None) -> Iterator[str]:
    """Of figures that nobody can see, or everybody. host: where calls come; metrics: where they are served."""
    if metrics is None and not is_loopback(host):
        yield "metrics are off: nobody is told when something is wrong; give metrics"
    if metrics is not None and not is_loopback(addresses.parse(metrics, "--metrics")[0]):
        yield f"metrics are plain HTTP at {metrics}: whoever can connect there reads them"
