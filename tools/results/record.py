"""Files of results: one JSON list a run, an object a cell of the book, checked and written whole.

A report script ends with

    record.write(arguments.result, [record.cell("binary_uci", "MADE on DNA", -87.4, ...)])

and what is the same for every script (versions, machine, date, command, minutes) is filled in here.
Keys of a cell:

    chapter         a name of `CHAPTERS`, those of chapters.json
    cell            what was trained on what; once in its chapter
    command         that gives the figure again, from the root of the checkout
    seed            an integer, a list of them, or null: not known
    budget          what the training may take, of `BUDGETS`; empty: none, or not known
    versions        of `VERSIONS`, each a text, or null: not known
    machine, date   processor or GPU and its load, or null: not known; YYYY-MM-DD
    unit            that of the chapter
    ours            a number, or null: not computed
    standard_error  of `ours`, or null
    published       null, or an object of `PUBLISHED` with its source
    at_hand         whether the published data and a budget like the published one were there
    minutes         that it took, or null: not known
    reason          why a figure or an error is null, or what was not at hand; else null
    note            what else differs, or null
    transcribed     true: entered by hand from RESULTS.md, where the run was told first
"""

import argparse
import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import shlex
import sys
import time
from typing import NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CELLS = HERE / "cells"
VERSIONS = ("tensorflow", "keras", "tensorflow_probability", "tfp_flows")
BUDGETS = ("minutes", "epochs", "steps", "simulations", "rows")
PUBLISHED = ("value", "standard_error", "authors", "title", "year", "arxiv", "where")
_NUMBER = (int, float)
_START = time.monotonic()


class Chapter(NamedTuple):
    """A chapter of the book: its title, the unit of its figures and which of them are better."""

    title: str
    unit: str
    better: str  # "higher", "lower", or "equal": what is published is the truth
    text: str


CHAPTERS = {
    name: Chapter(**fields)
    for name, fields in json.loads((HERE / "chapters.json").read_text(encoding="utf-8")).items()
}


class ResultError(ValueError):
    """A file of results that does not fit: one line that names the file and the key."""


def cell(
    chapter,
    name,
    ours,
    *,
    standard_error=None,
    published=None,
    at_hand=False,
    budget=None,
    seed=None,
    minutes=None,
    reason=None,
    note=None,
):
    """A cell without what `write` fills in; the keys are those of the module's docstring."""
    return {
        "chapter": chapter,
        "cell": name,
        "seed": seed,
        "budget": {} if budget is None else {k: v for k, v in budget.items() if v is not None},
        "ours": None if ours is None else float(ours),
        "standard_error": None if standard_error is None else float(standard_error),
        "published": published,
        "at_hand": bool(at_hand),
        "minutes": None if minutes is None else float(minutes),
        "reason": reason,
        "note": note,
    }


def source(value, authors, title, year, arxiv, where, standard_error=None):
    """What is published: a figure and where it stands (`where`: a table, an equation, a file)."""
    values = (value, standard_error, authors, title, year, arxiv, where)
    return dict(zip(PUBLISHED, values, strict=True))


def add_argument(parser):
    """Gives a script's command line `--result FILE`."""
    parser.add_argument(
        "--result",
        metavar="FILE",
        type=_file_name,
        help="writes the figures as cells of the book of results (tools/results), too",
    )


def _file_name(text):
    if not text.endswith(".json") or os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"expected a file that ends in .json, got '{text}'")
    return text


def write(path, cells):
    """Checks cells and writes them as one file, whole or not at all; an old one is replaced.

    Raises:
      ResultError: if a cell does not fit.
    """
    from tfp_flows._files import written_whole

    path = os.fspath(path)
    filled = []
    for one in cells:
        one = {
            **one,
            "command": command(),
            "versions": versions(),
            "machine": machine(),
            "date": datetime.date.today().isoformat(),
            "unit": CHAPTERS[one["chapter"]].unit if one["chapter"] in CHAPTERS else "",
            "transcribed": False,
        }
        if one["minutes"] is None:
            one["minutes"] = (time.monotonic() - _START) / 60.0
        check(one, path)
        filled.append({key: one[key] for key in KEYS})
    with written_whole(path, owner="results", overwrite=True) as partial:
        text = json.dumps(filled, indent=1, allow_nan=False, ensure_ascii=False)
        pathlib.Path(partial).write_text(f"{text}\n", encoding="utf-8")


def read(path):
    """The checked cells of a file."""
    path = pathlib.Path(path)
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"{path.name}: expected a JSON file, got: {error}.") from None
    if not isinstance(cells, list) or not cells:
        raise ResultError(f"{path.name}: expected a list of cells, got {_short(cells)}.")
    for one in cells:
        check(one, path)
    return cells


def read_all(folder=CELLS):
    """The cells of all files of a folder, by chapter, in the order of their names."""
    book: dict[str, list] = {chapter: [] for chapter in CHAPTERS}
    places: dict[tuple, str] = {}
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        for one in read(path):
            key = (one["chapter"], one["cell"])
            if key in places:
                raise ResultError(
                    f"{path.name}: key 'cell': '{one['cell']}' is in {places[key]} already. Remove "
                    "one of them, or say in the name what differs."
                )
            places[key] = path.name
            book[one["chapter"]].append(one)
    return book


def check(one, path):
    """Refuses a cell that does not fit its chapter.

    Raises:
      ResultError: one line: file, key, what was expected and what was there.
    """

    def refuse(key, expected, value):
        raise ResultError(
            f"{pathlib.Path(path).name}: key '{key}': expected {expected}, got {_short(value)}."
        )

    if not isinstance(one, dict):
        refuse("(none)", "an object", one)
    _check_keys(one, KEYS, "", refuse)
    for key, (expected, fits) in KEYS.items():
        if not fits(one[key]):
            refuse(key, expected, one[key])
    chapter = CHAPTERS[one["chapter"]]
    if one["unit"] != chapter.unit:
        refuse("unit", f"'{chapter.unit}', the unit of chapter '{one['chapter']}'", one["unit"])
    _check_keys(one["versions"], VERSIONS, "versions.", refuse)
    for key in one["budget"]:
        if key not in BUDGETS:
            refuse(f"budget.{key}", f"one of {', '.join(BUDGETS)}", key)
    if one["published"] is not None:
        _check_keys(one["published"], PUBLISHED, "published.", refuse)
        if not _is_number(one["published"]["value"]):
            refuse("published.value", "a finite number", one["published"]["value"])
        for key in ("authors", "title", "where"):
            if not _is_text(one["published"][key]):
                refuse(f"published.{key}", "a text", one["published"][key])
        for key, fits, expected in (
            ("year", _is_seed, "a year"),
            ("arxiv", _or_null(_is_text), "a number as a text, or null"),
            ("standard_error", _or_null(_not_negative), "a finite number from 0, or null"),
        ):
            if not fits(one["published"][key]):
                refuse(f"published.{key}", expected, one["published"][key])
    elif one["at_hand"]:
        refuse("at_hand", "false where nothing is published", True)
    missing = one["ours"] is None or one["standard_error"] is None
    missing |= one["published"] is not None and not one["at_hand"]
    if missing and one["reason"] is None:
        refuse("reason", "why a figure, its error, or data or budget are missing", None)
    if one["ours"] is None and one["standard_error"] is not None:
        refuse("standard_error", "null where 'ours' is", one["standard_error"])


def command():
    """The command of this process, as it would be typed in the root of the checkout."""
    # Where files are written to changes no figure.
    words, skip, places = ["python"], False, ("--result", "--out")
    for word in sys.argv:
        if skip or word.startswith(tuple(f"{place}=" for place in places)):
            skip = False
        elif word in places:
            skip = True
        elif os.path.isabs(word) or len(words) == 1:
            words.append(os.path.relpath(word, ROOT))
        else:
            words.append(word)
    return shlex.join(words)


def versions():
    """The versions of what computed."""
    from tfp_flows.version import __version__

    found = {name: _version(name.replace("_", "-")) for name in VERSIONS[:-1]}
    return {**found, "tfp_flows": __version__}


def machine():
    """The processor and its load, and the GPU that this process uses."""
    text = f"{_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}"
    tensorflow = sys.modules.get("tensorflow")
    for device in tensorflow.config.list_physical_devices("GPU") if tensorflow else ():
        details = tensorflow.config.experimental.get_device_details(device)
        text += f"; {details.get('device_name', 'a GPU')}"
    return text


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, "unknown processor")


def _check_keys(found, wanted, prefix, refuse):
    for key in wanted:
        if key not in found:
            refuse(prefix + key, "it to be there", "nothing")
    for key in found:
        if key not in wanted:
            refuse(prefix + key, f"a key of {', '.join(wanted)}", "an unknown key")


def _is_number(value):
    return isinstance(value, _NUMBER) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value):
    return isinstance(value, str) and bool(value.strip())


def _is_chapter(value):
    return isinstance(value, str) and value in CHAPTERS


def _is_seed(value):
    values = value if isinstance(value, list) else [value]
    return all(isinstance(v, int) and not isinstance(v, bool) for v in values)


def _is_date(value):
    try:
        return bool(datetime.date.fromisoformat(value))
    except (TypeError, ValueError):
        return False


def _or_null(fits):
    return lambda value: value is None or fits(value)


def _not_negative(value):
    return _is_number(value) and value >= 0


def _is_budget(value):
    return isinstance(value, dict) and all(_not_negative(v) for v in value.values())


def _is_object(value):
    return isinstance(value, dict)


def _is_flag(value):
    return isinstance(value, bool)


KEYS = {
    "chapter": (f"one of {', '.join(CHAPTERS)}", _is_chapter),
    "cell": ("a text", _is_text),
    "command": ("a text", _is_text),
    "seed": ("an integer, a list of them, or null", _or_null(_is_seed)),
    "budget": ("an object of finite numbers", _is_budget),
    "versions": ("an object", _is_object),
    "machine": ("a text or null", _or_null(_is_text)),
    "date": ("a date, YYYY-MM-DD", _is_date),
    "unit": ("a text", _is_text),
    "ours": ("a finite number or null", _or_null(_is_number)),
    "standard_error": ("a finite number from 0, or null", _or_null(_not_negative)),
    "published": ("an object or null", _or_null(_is_object)),
    "at_hand": ("true or false", _is_flag),
    "minutes": ("a finite number from 0, or null", _or_null(_not_negative)),
    "reason": ("a text or null", _or_null(_is_text)),
    "note": ("a text or null", _or_null(_is_text)),
    "transcribed": ("true or false", _is_flag),
}


def _short(value):
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
