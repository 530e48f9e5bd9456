"""A scikit-learn pipeline whose last step is evaluated elsewhere, under encryption.

The scaler is fitted and applied here; the classifier behind it is served, hidden from this side, and sees ciphertext alone.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from secure_infer.heads import Head
from secure_infer_client import Client
from secure_infer_client.estimators import EncryptedClassifier
from secure_infer_client.local_server import LocalServer


def main() -> None:
    data = load_breast_cancer()
    x, new, y, truth = train_test_split(data.data, data.target_names[data.target], random_state=0)
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(max_iter=500).fit(scaler.transform(x), y)
    bound = 1.5 * float(np.abs(scaler.transform(x)).max())
    with tempfile.TemporaryDirectory() as directory:
        Head.from_sklearn(model, input_bound=bound).save(Path(directory) / "tumour.head")
        with LocalServer(Path(directory)) as server, Client(server.address, model="tumour") as client:
            pipeline = make_pipeline(scaler, EncryptedClassifier(client))
            encrypted = pipeline.predict(new)
            worst = np.abs(pipeline.decision_function(new) - model.decision_function(scaler.transform(new))).max()
    same = accuracy_score(model.predict(scaler.transform(new)), encrypted)
    sys.stdout.write(
        f"right {accuracy_score(truth, encrypted):.3f}, as in plaintext {same:.1%}, largest error {worst:.1e}\n"
    )


if __name__ == "__main__":
    main()
