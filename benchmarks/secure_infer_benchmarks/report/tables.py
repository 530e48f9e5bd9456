"""A table, as HTML that becomes a list of cards on a phone, and as aligned text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape


@dataclass
class Table:
    """caption: what it shows. columns: their titles; the first is of names. rows: as many cells each, or one: a heading."""

    caption: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def heading(self, title: str) -> None:
        """What follows is of this."""
        self.rows.append((title,))

    def row(self, name: str, *cells: str) -> None:
        """Raises ValueError for a number of cells other than that of the columns."""
        if len(cells) + 1 != len(self.columns):
            raise ValueError(f"{self.caption}: expected {len(self.columns)} cells, got {len(cells) + 1}")
        self.rows.append((name, *cells))

    def without_empty(self, empty: str) -> Table:
        """Less the columns in which no row says anything."""
        full = [row for row in self.rows if len(row) > 1]
        kept = [at for at in range(len(self.columns)) if at == 0 or any(row[at] not in (empty, "") for row in full)]
        cells = [row if len(row) == 1 else [row[at] for at in kept] for row in self.rows]
        return Table(self.caption, [self.columns[at] for at in kept], list(cells))

    def html(self) -> str:
        """Roles are written out: a table that a style sheet lays out as blocks would lose them."""
        words = self._words()
        heads = "".join(
            f'<th scope="col" role="columnheader"{_WORDS if of_words else ""}>{escape(title)}</th>'
            for title, of_words in zip(self.columns, words, strict=True)
        )
        body = []
        for row in self.rows:
            if len(row) == 1:
                title = f'<th scope="colgroup" role="rowheader" colspan="{len(self.columns)}">{escape(row[0])}</th>'
                body.append(f'<tr role="row" class="group">{title}</tr>')
                continue
            cells = "".join(
                f'<td role="cell" data-of="{escape(title)}"{_WORDS if of_words else ""}>{escape(cell)}</td>'
                for title, cell, of_words in zip(self.columns[1:], row[1:], words[1:], strict=True)
            )
            body.append(f'<tr role="row"><th scope="row" role="rowheader">{escape(row[0])}</th>{cells}</tr>')
        return (
            f'<table role="table"><caption>{escape(self.caption)}</caption>'
            f'<thead role="rowgroup"><tr role="row">{heads}</tr></thead>'
            f'<tbody role="rowgroup">{"".join(body)}</tbody></table>'
        )

    def _words(self) -> list[bool]:
        """Which columns hold words: names, and those without a number."""
        full = [row for row in self.rows if len(row) > 1]
        return [at == 0 or not any(_numeric(row[at]) for row in full) for at in range(len(self.columns))]

    def text(self) -> str:
        """Columns aligned, words left and figures right; a heading stands alone and its rows are indented."""
        indent = "  " if any(len(row) == 1 for row in self.rows) else ""
        full = [self.columns, *([indent + row[0], *row[1:]] for row in self.rows if len(row) > 1)]
        widths = [max(len(row[at]) for row in full) for at in range(len(self.columns))]

        left = self._words()

        def line(row: Sequence[str]) -> str:
            cells = zip(row, widths, left, strict=True)
            return "  ".join(
                cell.ljust(width) if to_left else cell.rjust(width) for cell, width, to_left in cells
            ).rstrip()

        body = (row[0] if len(row) == 1 else line([indent + row[0], *row[1:]]) for row in self.rows)
        return "\n".join([line(self.columns), *body])


_WORDS = ' class="words"'


def _numeric(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] in (">", "+", "-", "*") or cell in ("yes", "no")
