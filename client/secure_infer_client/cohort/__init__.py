"""A cohort scored file to file: streamed, in chunks that are committed one by one, so that a run that was killed goes on."""

from secure_infer_client.cohort.job import Job
from secure_infer_client.cohort.score import score
from secure_infer_client.cohort.summary import Progress, Summary

__all__ = ["Job", "Progress", "Summary", "score"]
