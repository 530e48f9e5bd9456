"""The Open Inference Protocol, version 2 (KServe's and Triton's), as a second door to `InferenceService.Infer`.

docs/open-inference.md has the mapping. Keys, plans and batches are asked for natively; see `secure_infer.v1`.
"""

from __future__ import annotations
