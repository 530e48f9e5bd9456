"""A report as a page, as pictures and as the blocks of a README: all from its JSON, nothing is measured here."""
