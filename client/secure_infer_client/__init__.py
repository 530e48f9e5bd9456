"""The trusted side: text, secret keys, encryption, decryption. Nothing here trusts what a server says unchecked.

from secure_infer_client import Client
with Client("127.0.0.1:8443", model="icd10-chapter-linear") as client:
    print(client.classify(["acute appendicitis with perforation"])[0].label)

At two parties instead of one server: Client(("127.0.0.1:8443", "127.0.0.1:8444"), model=..., scheme="mpc").
"""

from secure_infer_client.aio import AsyncClient
from secure_infer_client.client import Client
from secure_infer_client.explanation import Explanation, contributions
from secure_infer_client.keyring import KeyRing
from secure_infer_client.prediction import Call, CallStats, Prediction
from secure_infer_client.publish import Published, PublishedPrediction, publish, publish_predictions
from secure_infer_client.record import Record

__all__ = [
    "AsyncClient",
    "Call",
    "CallStats",
    "Client",
    "Explanation",
    "KeyRing",
    "Prediction",
    "Published",
    "PublishedPrediction",
    "Record",
    "contributions",
    "publish",
    "publish_predictions",
]
