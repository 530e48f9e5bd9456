"""The trusted side: text, secret keys, encryption, decryption. Nothing here trusts what a server says unchecked.

from secure_infer_client import Client
with Client("127.0.0.1:8443", model="icd10-chapter-linear") as client:
    print(client.classify(["acute appendicitis with perforation"])[0].label)

At two parties instead of one server: Client(("127.0.0.1:8443", "127.0.0.1:8444"), model=..., scheme="mpc").
"""

from secure_infer_client.aio import AsyncClient
from secure_infer_client.client import Client
from secure_infer_client.prediction import Call, CallStats, Explanation, Prediction
from secure_infer_client.publish import Published, PublishedPrediction, publish, publish_predictions

__all__ = [
    "AsyncClient",
    "Call",
    "CallStats",
    "Client",
    "Explanation",
    "Prediction",
    "Published",
    "PublishedPrediction",
    "publish",
    "publish_predictions",
]
