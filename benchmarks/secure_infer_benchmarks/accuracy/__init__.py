"""What encryption does to answers: complete labelled test sets, encrypted beside plaintext.

Suite `accuracy` of `secure-infer bench`: for each set, head and scheme a row with accuracy, macro-F1, agreement with plaintext,
how far logits are from plaintext's, how far probabilities can be believed, and figures by class.

    sets        the labelled sets and the heads that are asked about them
    embeddings  texts to rows, kept for the next run
    asking      real processes, real queries
    measures    from logits to figures
    tables      the suite as text
    icd9        makes the packaged ICD-9-CM set from public data
"""

from secure_infer_benchmarks.accuracy.asking import Options, measure
from secure_infer_benchmarks.accuracy.tables import table

__all__ = ["Options", "measure", "table"]
