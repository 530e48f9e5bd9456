"""A pandas table: a column of texts becomes columns of answers. For files larger than memory there is `secure-infer score`.

Needs `pip install pandas`.
"""

from __future__ import annotations

import sys

import pandas

from secure_infer import models
from secure_infer_client import Client, samples
from secure_infer_client.local_server import LocalServer


def classified(client: Client, table: pandas.DataFrame, column: str) -> pandas.DataFrame:
    """`table` with label, probability and certain. Rows without a text get none; they are not sent."""
    given = table[column].fillna("").str.strip() != ""
    found = client.classify(table.loc[given, column].tolist())
    answers = pandas.DataFrame(
        {
            "label": [one.label for one in found],
            "probability": [one.probability for one in found],
            "certain": [one.certain for one in found],
        },
        index=table.index[given],
    )
    return table.join(answers)


def main() -> None:
    drawn = samples.draw(200)
    table = pandas.DataFrame({"id": range(200), "text": [sample.text for sample in drawn]})
    table.loc[3, "text"] = None
    with LocalServer(models.path()) as server, Client(server.address, model="icd10-chapter-linear") as client:
        answered = classified(client, table, "text")
    sys.stdout.write(answered.groupby("label").size().sort_values(ascending=False).head(5).to_string() + "\n")
    sys.stdout.write(f"{answered.label.notna().sum()} of {len(answered)} rows have an answer\n")


if __name__ == "__main__":
    main()
