"""What `secure-infer plan` explains: ways to evaluate a model and what they take, for one record and for many.

costed      one plan with its estimate; what many records take with it
table       a report as lines, and as JSON

Of two parties: shared_work (what a request takes), shared_table.
"""
