"""Calls as OpenTelemetry spans; loaded when traces are asked for, and not before.

One span a call, and one child for each stage. Where they go, how many are kept and what the service is called is said by the
standard OTEL_* variables. A caller's `traceparent` is taken up; its `tracestate`, which is free text, is not.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from secure_infer import __version__
from secure_infer.errors import SettingsError
from secure_infer_server.callers.policy import PACKAGE
from secure_infer_server.observe.calls import STAGES, Call, Context

ATTRIBUTES = (
    *("rpc.system", "rpc.service", "rpc.method"),
    *("secure_infer.model", "secure_infer.plan", "secure_infer.outcome", "secure_infer.request", "secure_infer.fault"),
    *("secure_infer.records", "secure_infer.bytes_in", "secure_infer.bytes_out"),
    *("secure_infer.blinds_ready", "secure_infer.blinds_inline"),
)
"""Those that a call's span may have. Spans of stages have none."""

PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
_EXPORTERS = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
}
_PARENT = "traceparent"
_PROPAGATOR = TraceContextTextMapPropagator()
_PREFIX = "secure_infer."
_NUMBERS = ("records", "bytes_in", "bytes_out", "blinds_ready", "blinds_inline")


def exporter() -> SpanExporter:
    """OTLP, over what the environment names; raises SettingsError."""
    name = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get(PROTOCOL) or "grpc"
    if name not in _EXPORTERS:
        raise SettingsError(f"{PROTOCOL}: expected {' or '.join(_EXPORTERS)}, got {name!r}")
    try:
        module: Any = import_module(f"{_EXPORTERS[name]}.trace_exporter")
    except ModuleNotFoundError:
        package = _EXPORTERS[name].replace(".", "-")
        raise SettingsError(f"{PROTOCOL}: {name} needs the package {package}; install it") from None
    made: SpanExporter = module.OTLPSpanExporter()
    return made


class Ids(IdGenerator):
    """From the operating system: the packaged one draws from a generator that can be guessed."""

    def generate_span_id(self) -> int:
        return secrets.randbits(64) or 1

    def generate_trace_id(self) -> int:
        return secrets.randbits(128) or 1

    def is_trace_id_random(self) -> bool:
        return True


class Traces:
    """An `Observer`. `close` sends what is left."""

    def __init__(self, export: SpanExporter | None = None) -> None:
        """export: None: what the environment says."""
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "secure-infer"}
        self._resource, self._ids = Resource.create(named), Ids()
        self._provider = TracerProvider(resource=self._resource, id_generator=self._ids)
        self._processor = BatchSpanProcessor(export or exporter())
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("secure_infer", __version__)

    def begin(self, call: Call, context: Context) -> None:
        span = self._tracer.start_span(
            _name(call), _parent(context), SpanKind.SERVER, start_time=call.started_ns, record_exception=False
        )
        call.span = span
        call.trace = trace.format_trace_id(span.get_span_context().trace_id)

    def end(self, call: Call) -> None:
        span = call.span
        end = call.started_ns + round(1e9 * call.seconds)
        if span.is_recording():
            span.set_attributes(dict(_attributes(call)))
            if not call.answered:
                span.set_status(Status(StatusCode.ERROR))
            self._tell_stages(call, span.get_span_context())
        span.end(end)

    def _tell_stages(self, call: Call, inside: SpanContext) -> None:
        """As spans that were never open: they take a tenth of the time."""
        for name, begun, ended in _stages(call):
            own = SpanContext(inside.trace_id, self._ids.generate_span_id(), False, inside.trace_flags)
            span = ReadableSpan(name, own, inside, self._resource, start_time=begun, end_time=ended)
            self._processor.on_end(span)

    def close(self) -> None:
        self._provider.shutdown()


def _name(call: Call) -> str:
    return call.method if "." in call.method else PACKAGE + call.method


def _parent(context: Context) -> Any:
    """The caller's span, where it names one."""
    for key, value in context.invocation_metadata() or ():
        if key == _PARENT:
            return _PROPAGATOR.extract({_PARENT: value}) if isinstance(value, str) else None
    return None


def _attributes(call: Call) -> Iterator[tuple[str, str | int]]:
    service, _, method = _name(call).rpartition("/")
    yield from (("rpc.system", "grpc"), ("rpc.service", service), ("rpc.method", method))
    yield _PREFIX + "outcome", call.outcome
    said = {"model": call.model, "plan": call.kind, "request": call.request, "fault": call.fault}
    said_numbers = {name: getattr(call, name) for name in _NUMBERS}
    yield from ((_PREFIX + name, value) for name, value in {**said, **said_numbers}.items() if value)


def _stages(call: Call) -> Iterator[tuple[str, int, int]]:
    """Names, begin and end in nanoseconds. What is known is how long each took: they are laid one before the other, the last up
    to the evaluation's end; blinds are made within it."""
    end = call.started_ns + round(1e9 * ((call.evaluated or call.started + call.seconds) - call.started))
    for name in reversed(STAGES):
        if name not in call.stages:
            continue
        begin = end - round(1e9 * call.stages[name])
        yield name, begin, end
        end = end if name == "blind" else begin
