"""What this client scored, when, and by which model: a local, encrypted record for the institution's own auditors.

with Record("scored.record", "correct horse battery", operator="ward 3") as record:
    with Client("127.0.0.1:8443", model="icd10-chapter-linear", record=record) as client:
        with record.about(ids=["visit-17"]):
            client.classify(["Acute appendicitis"])
"""

from secure_infer_client.record.calls import Recording
from secure_infer_client.record.record import Record
from secure_infer_client.record.view import View, read

__all__ = ["Record", "Recording", "View", "read"]
