"""Charts: what each says in words, its numbers as a table, and how it is drawn."""
