"""The audit log: who asked what and when, chained and signed; see `AuditLog`. Never content."""

from secure_infer.errors import AuditUnavailable
from secure_infer_server.audit.event import Event
from secure_infer_server.audit.log import AuditLog
from secure_infer_server.audit.settings import AuditSettings, WhenFull

__all__ = ["AuditLog", "AuditSettings", "AuditUnavailable", "Event", "WhenFull"]
