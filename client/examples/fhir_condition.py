"""FHIR R4: Condition resources in, the same with the ICD-10 chapter as a further category out.

The text is taken from `code.text`, else from the first `display`. The answer says that a machine gave it: the resource gets the
security label AIAST ("Artificial Intelligence asserted"), the coding `userSelected: false` and the digest of the model as its
version. The subject's reference stays where it is: it is never embedded, and nothing of the resource is sent but ciphertext.
"""

from __future__ import annotations

import copy
import json
import sys
from typing import Any

from secure_infer import models
from secure_infer_client import Client
from secure_infer_client.local_server import LocalServer

SYSTEM = "urn:secure-infer:icd10-chapter"
ASSERTED = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}

CONDITIONS = [
    {
        "resourceType": "Condition",
        "id": "example-1",
        "subject": {"reference": "Patient/4711"},
        "code": {"text": "Acute appendicitis with perforation"},
    },
    {
        "resourceType": "Condition",
        "id": "example-2",
        "subject": {"reference": "Patient/4712"},
        "code": {"coding": [{"system": "http://snomed.info/sct", "code": "71620000", "display": "Fracture of femur"}]},
    },
    {"resourceType": "Condition", "id": "example-3", "subject": {"reference": "Patient/4713"}},
]


def text_of(condition: dict[str, Any]) -> str:
    """What the condition is called; empty where it says nothing."""
    code = condition.get("code", {})
    shown = [coding["display"] for coding in code.get("coding", []) if coding.get("display")]
    return str(code.get("text") or next(iter(shown), "")).strip()


def coded(client: Client, conditions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Copies with the chapter; those without a text, and those better left to a person, as they were."""
    found = copy.deepcopy(conditions)
    able = [condition for condition in found if text_of(condition)]
    for condition, answer in zip(able, client.classify([text_of(one) for one in able]), strict=True):
        if answer.abstain or not answer.certain:
            continue
        chapter, _, name = answer.label.partition(" ")
        coding = {
            "system": SYSTEM,
            "version": client.spec.digest,
            "code": chapter,
            "display": name,
            "userSelected": False,
        }
        condition.setdefault("category", []).append({"coding": [coding], "text": answer.label})
        condition.setdefault("meta", {}).setdefault("security", []).append(ASSERTED)
    return found


def main() -> None:
    with LocalServer(models.path()) as server, Client(server.address, model="icd10-chapter-linear") as client:
        for condition in coded(client, CONDITIONS):
            sys.stdout.write(json.dumps(condition) + "\n")


if __name__ == "__main__":
    main()
