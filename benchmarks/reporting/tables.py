"""Lists and tables in Markdown that also read well on a terminal."""


def bullets(title: str, lines: list[str]) -> str:
    return "\n".join([f"{title}:", "", *(f"- {line}" for line in lines)])


def table(header: list[str], rows: list[list[str]], left: int) -> str:
    """A padded Markdown table whose first ``left`` columns are text."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(header), line(rule), *map(line, rows)])
