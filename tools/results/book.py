"""Makes the book of results: a page a chapter and an index, of the files in `tools/results/cells`.

    python tools/results/book.py                     # to build/book
    python tools/results/book.py --cells FOLDER --out FOLDER

Of the cells whose published data and budget were at hand it counts how many are within two standard
errors (those of both figures together) or 1% of what is published, and how many are beyond that on
the better side. A file that does not fit its chapter stops it.
"""

import argparse
import itertools
import math
import pathlib
import re

import record

MISSING = "-"
VERDICTS = ("within", "better", "worse")


def difference(cell):
    """Ours less the published figure, or `None`."""
    if cell["ours"] is None or cell["published"] is None:
        return None
    return cell["ours"] - cell["published"]["value"]


def verdict(cell):
    """One of `VERDICTS` for a cell that has what it takes to be compared, else `None`."""
    off = difference(cell)
    if off is None or not cell["at_hand"]:
        return None
    published = cell["published"]
    error = math.hypot(cell["standard_error"] or 0.0, published["standard_error"] or 0.0)
    if abs(off) <= max(2.0 * error, 0.01 * abs(published["value"])):
        return "within"
    direction = record.CHAPTERS[cell["chapter"]].better
    if direction == "equal":
        return "worse"
    return "better" if (off > 0) == (direction == "higher") else "worse"


def count(cells):
    """How many of some cells have each verdict, as `{verdict: number}`."""
    found = [verdict(cell) for cell in cells]
    return {name: found.count(name) for name in VERDICTS}


def summary(cells):
    """The sentence of the index."""
    found = count(cells)
    return (
        f"Of the {sum(found.values())} cells whose published data and budget are at hand, "
        f"{found['within']} are within two standard errors or 1% of the published figure, "
        f"{found['better']} are better by more than that, and {found['worse']} are worse."
    )


def number(value, error=None, sign=""):
    """A figure with as many decimals as its standard error makes sense of."""
    if value is None:
        return MISSING
    if error:
        decimals = min(5, max(0, 1 - math.floor(math.log10(error))))
        return f"{value:{sign}.{decimals}f}"
    return f"{value:{sign}.5g}"


def row(cell):
    """A row of a chapter's table."""
    published, error = cell["published"] or {}, cell["standard_error"]
    stands = verdict(cell) or (MISSING if not published else "other data or budget")
    if cell["ours"] is None:
        stands = "not computed"
    texts = (
        cell["cell"],
        number(published.get("value")),
        number(cell["ours"], error),
        number(difference(cell), error, "+"),
        number(error, error),
        number(cell["minutes"] and round(cell["minutes"], 1)),
        stands,
    )
    return f"| {' | '.join(text.replace('|', '/') for text in texts)} |"


def cited(published):
    """A source in one line."""
    arxiv = f", arXiv:{published['arxiv']}" if published["arxiv"] else ""
    return (
        f"{published['authors']}, {published['title']}, {published['year']}{arxiv}, "
        f"{published['where']}"
    )


def facts_of(cell):
    """Seed, budget, date, machine and versions in one line."""
    budget = ", ".join(f"{value:g} {name}" for name, value in cell["budget"].items())
    seed = "not known" if cell["seed"] is None else str(cell["seed"]).strip("[]")
    known = [f"{name} {value}" for name, value in cell["versions"].items() if value]
    facts = [f"Seed {seed}", f"budget {budget}" if budget else "", cell["date"]]
    facts += [cell["machine"] or "", ", ".join(known)]
    facts += ["figures entered from RESULTS.md"] if cell["transcribed"] else []
    return "; ".join(fact for fact in facts if fact)


def of_command(cells):
    """The lines below the table that belong to the cells of one command."""
    lines = ["```", cells[0]["command"], "```", ""]
    if any(cell["ours"] is not None for cell in cells):
        lines += [f"{facts_of(cells[0])}.", ""]
    remarks: dict[str, list] = {}
    for cell in cells:
        text = "; ".join(text for text in (cell["reason"], cell["note"]) if text)
        remarks.setdefault(text, []).append(cell["cell"])
    for text, names in remarks.items():
        if text:
            who = "All" if 1 < len(names) == len(cells) else "; ".join(names)
            lines.append(f"- {who}: {text}.")
    return [*lines, ""]


def place(cell):
    """What sorts the cells of a page: their names, numbers as such."""
    parts = re.split(r"(\d+)", cell["cell"])
    return [int(part) if n % 2 else part for n, part in enumerate(parts)]


def page(name, cells):
    """The text of a chapter."""
    chapter = record.CHAPTERS[name]
    better = f"{chapter.better} is better"
    if chapter.better == "equal":
        better = "what is published is the truth"
    lines = [f"# {chapter.title}", "", chapter.text, ""]
    lines += [f"In {chapter.unit}; {better}.", ""]
    lines += ["| cell | published | ours | difference | standard error | minutes | stands |"]
    lines += ["|---|---|---|---|---|---|---|", *(row(cell) for cell in cells), ""]
    sources = sorted({cited(cell["published"]) for cell in cells if cell["published"]})
    if sources:
        lines += ["Published:", "", *(f"- {text}" for text in sources), ""]
    lines += ["## Commands", ""]

    def run(cell):
        return cell["command"], cell["date"], str(cell["seed"]), str(cell["budget"])

    for _, together in itertools.groupby(sorted(cells, key=run), run):
        lines += of_command(list(together))
    return "\n".join(lines).rstrip() + "\n"


def index(book):
    """The text of the first page."""
    cells = [cell for found in book.values() for cell in found]
    lines = [
        "# The book of results",
        "",
        f"{summary(cells)} {len(cells)} cells in all: where data or compute are missing, a cell "
        "says so, and its script runs all the same on what a user brings.",
        "",
        "Every figure stands in a file of `tools/results/cells` with its command, seed, budget, "
        "versions and machine. The scripts write such a file with `--result FILE`.",
        "",
        f"| chapter | cells | at hand | {' | '.join(VERDICTS)} |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in book.items():
        if found:
            counts = count(found)
            numbers = [len(found), sum(counts.values()), *counts.values()]
            title = f"[{record.CHAPTERS[name].title}]({name}.md)"
            lines.append(f"| {' | '.join([title, *map(str, numbers)])} |")
    worse = [cell for cell in cells if verdict(cell) == "worse"]
    if worse:
        lines += ["", "Worse than published:", ""]
        for cell in worse:
            title = record.CHAPTERS[cell["chapter"]].title
            texts = [number(cell["ours"], cell["standard_error"]), cell["reason"] or cell["note"]]
            lines.append(
                f"- {title}, {cell['cell']}: {texts[0]}, published "
                f"{number(cell['published']['value'])}{'. ' if texts[1] else ''}{texts[1] or ''}"
            )
    return "\n".join(lines) + "\n"


def write(folder, cells=record.CELLS):
    """Writes the pages; returns the names of the chapters that have cells, and the summary."""
    book = record.read_all(cells)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.md").write_text(index(book), encoding="utf-8")
    names = [name for name, found in book.items() if found]
    for name in names:
        cells = sorted(book[name], key=place)
        (folder / f"{name}.md").write_text(page(name, cells), encoding="utf-8")
    return names, summary([cell for found in book.values() for cell in found])


def main():
    """Writes the book."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", default=record.CELLS, help="folder of the files: %(default)s")
    parser.add_argument("--out", default=record.ROOT / "build" / "book", help="default: build/book")
    args = parser.parse_args()
    try:
        names, text = write(args.out, args.cells)
    except record.ResultError as error:
        raise SystemExit(f"The book was not made. {error}") from None
    print(f"{len(names)} chapters in {args.out}. {text}")


if __name__ == "__main__":
    main()
