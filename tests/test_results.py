"""The book of results: which files it takes, what it counts, and that the committed ones fit."""

import copy
import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tools" / "results"))

import book
import record

SOURCE = record.source(-10.0, "A. Author", "A title", 2020, "2001.00001", "table 1", 0.3)


def cell(ours=-10.5, error=0.2, **changes):
    """A cell that fits."""
    found = record.cell(
        "binary_uci", "a cell", ours, standard_error=error, published=SOURCE, at_hand=True, seed=0
    )
    found.update(command="python x.py", versions=dict.fromkeys(record.VERSIONS), machine=None)
    found.update(date="2026-11-27", unit="nats", transcribed=True)
    return {**found, **changes}


def saved(folder, cells, name="file.json"):
    (folder / name).write_text(json.dumps(cells))
    return folder / name


def changed(**changes):
    """A cell of which `published` is changed."""
    return cell(published={**SOURCE, **changes})


@pytest.mark.parametrize(
    "found, message",
    [
        (cell(color="red"), "key 'color': expected a key of chapter, cell, "),
        ({k: v for k, v in cell().items() if k != "date"}, "key 'date': expected it to be there"),
        (cell(unit="bits/dim"), "key 'unit': expected 'nats', the unit of chapter 'binary_uci'"),
        (cell(chapter="no such"), "key 'chapter': expected one of baselines, "),
        (cell(chapter=["images"]), "key 'chapter': expected one of baselines, "),
        (cell(ours=float("nan")), "key 'ours': expected a finite number or null, got nan"),
        (cell(error=float("inf")), "key 'standard_error': expected a finite number from 0"),
        (cell(error=None), "key 'reason': expected why a figure"),
        (cell(at_hand=False), "key 'reason': expected why a figure"),
        (cell(ours=None, reason="no data"), "key 'standard_error': expected null where 'ours' is"),
        (cell(published=None), "key 'at_hand': expected false where nothing is published"),
        (changed(value="ten"), "key 'published.value': expected a finite number, got 'ten'"),
        (changed(arxiv=2001.1), "key 'published.arxiv': expected a number as a text, or null"),
        (changed(page=3), "key 'published.page': expected a key of value, "),
        (cell(versions={}), "key 'versions.tensorflow': expected it to be there"),
        (cell(budget={"hours": 1}), "key 'budget.hours': expected one of minutes, "),
        (cell(budget={"minutes": -1}), "key 'budget': expected an object of finite numbers"),
        (cell(date="27 November"), "key 'date': expected a date, YYYY-MM-DD, got '27 November'"),
        (cell(seed=True), "key 'seed': expected an integer, a list of them, or null, got True"),
        ("cell", "key '(none)': expected an object, got 'cell'"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_its_key(tmp_path, found, message):
    with pytest.raises(record.ResultError) as error:
        record.read(saved(tmp_path, [cell(), found]))
    assert str(error.value).startswith(f"file.json: {message}")
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_list_of_cells_is_refused(tmp_path):
    with pytest.raises(record.ResultError, match="file.json: expected a list of cells, got {}"):
        record.read(saved(tmp_path, {}))
    (tmp_path / "file.json").write_text("[")
    with pytest.raises(record.ResultError, match="file.json: expected a JSON file"):
        record.read(tmp_path / "file.json")


def test_a_cell_is_once_in_its_chapter(tmp_path):
    saved(tmp_path, [cell()], "a.json")
    saved(tmp_path, [cell(cell="another")], "b.json")
    assert len(record.read_all(tmp_path)["binary_uci"]) == 2
    saved(tmp_path, [cell()], "c.json")
    with pytest.raises(record.ResultError, match="c.json: key 'cell': 'a cell' is in a.json"):
        record.read_all(tmp_path)


def test_what_a_script_writes_fits(tmp_path, monkeypatch):
    script = str(record.ROOT / "tools" / "a_report.py")
    data = str(record.ROOT.parent / "data.npz")
    given = [script, "--data", data, "--result", "x.json", "--out=there", "--minutes", "1 + 1"]
    monkeypatch.setattr(sys, "argv", given)
    path = tmp_path / "new" / "x.json"
    mine = record.cell(
        "images", "mine", 3.0, reason="no error", budget={"steps": 5, "epochs": None}
    )
    record.write(path, [mine])
    (found,) = record.read(path)
    assert found["command"] == "python tools/a_report.py --data ../data.npz --minutes '1 + 1'"
    assert found["unit"] == "bits/dim" and found["minutes"] > 0 and not found["transcribed"]
    assert found["budget"] == {"steps": 5} and found["versions"]["tfp_flows"]
    assert list(found) == list(record.KEYS)
    bad = record.cell("images", "mine", float("nan"), reason="no error")
    with pytest.raises(record.ResultError, match="key 'ours'"):
        record.write(path, [bad])
    assert record.read(path) == [found]


# -10 +- 0.3 is published: two standard errors of both together are 0.72, 1% is 0.1.
@pytest.mark.parametrize(
    "ours, error, chapter, expected",
    [
        (-10.7, 0.2, "binary_uci", "within"),
        (-9.3, 0.2, "binary_uci", "within"),
        (-10.8, 0.2, "binary_uci", "worse"),
        (-9.2, 0.2, "binary_uci", "better"),
        (-10.8, 0.2, "images", "better"),
        (-9.2, 0.2, "images", "worse"),
        (-9.2, 0.2, "baselines", "worse"),
    ],
)
def test_verdicts(ours, error, chapter, expected):
    one = cell(ours, error, chapter=chapter)
    assert book.verdict(one) == expected
    exact = copy.deepcopy(one)
    exact["standard_error"], exact["published"]["standard_error"] = 0.0, None
    assert book.verdict({**exact, "ours": -9.91}) == "within"
    assert book.verdict({**one, "at_hand": False}) is None
    assert book.verdict({**one, "published": None}) is None
    assert book.verdict({**one, "ours": None}) is None


def test_the_book_has_every_committed_cell(tmp_path):
    chapters, summary = book.write(tmp_path)
    found = record.read_all()
    cells = [one for part in found.values() for one in part]
    assert len(cells) >= 20
    index = (tmp_path / "index.md").read_text()
    assert summary in index and all(f"({name}.md)" in index for name in chapters)
    for one in cells:
        page = (tmp_path / f"{one['chapter']}.md").read_text()
        assert f"| {one['cell']} |" in page and one["command"] in page
        if one["published"]:
            assert one["published"]["title"] in page
        if one["reason"]:
            assert one["reason"] in page
