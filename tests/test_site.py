"""The builder of the site: what it refuses, and with which line."""

import dataclasses
import re
import sys

import pytest
from test_architecture import ROOT

sys.path.insert(0, str(ROOT.parent / "tools" / "site"))
build = pytest.importorskip("build", reason="the extra `site` is not installed")

import cards  # noqa: E402
import gallery  # noqa: E402

from tfp_flows import pretrained  # noqa: E402

GOOD = """# %% [markdown]
# # A title
#
# A sentence
# over two lines. Another.

# %%
x = 1
print("so it is", x + 1)
print("\\r1/2 \\u2501\\u2501 1s")
"""


def written(folder, text, name="page.py"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_page_has_what_its_script_printed_and_is_run_once(tmp_path):
    script, said = written(tmp_path, GOOD), []
    page = gallery.load_or_run(script, tmp_path / "cache", "1", said.append)
    assert (page.title, page.summary) == ("A title", "A sentence over two lines. Another.")
    assert "so it is 2" in page.markdown and "\u2501" not in page.markdown
    assert gallery.load_or_run(script, tmp_path / "cache", "1", said.append) == page
    assert [line.split()[0] for line in said] == ["running", "ran"]
    gallery.write({"page": page}, {"First": ["page"]}, tmp_path / "docs")
    assert "[A title](page.md)" in (tmp_path / "docs" / "index.md").read_text()
    assert "Ran in" in (tmp_path / "docs" / "page.md").read_text()
    script.write_text(GOOD.replace("x = 1", "x = 2"))
    assert not gallery.load_or_run(script, tmp_path / "cache", "1", said.append, run=False).seconds
    assert "so it is 3" in gallery.load_or_run(script, tmp_path / "cache", "1", print).markdown


@pytest.mark.parametrize(
    "text, message",
    [
        (GOOD.replace('print("so', 'x = x[0]\nprint("so'), r"page.py:9: TypeError: 'int' object"),
        (GOOD.replace('print("so it is", x + 1)', "y = x"), "ends in no picture and no number"),
        ("# %%\nprint(1)\n", "page.py:1: expected a first cell"),
    ],
)
def test_a_bad_script_stops_the_build(tmp_path, text, message):
    with pytest.raises(gallery.PageFailed, match=message):
        gallery.load_or_run(written(tmp_path, text), tmp_path / "cache", "1", print)
    assert not list((tmp_path / "cache").glob("*/page.json"))


def test_a_guide_whose_code_fails_stops_the_build(tmp_path):
    guide = written(tmp_path, "# Guide\n\n```python\nx = 1\nx / 0\n```\n", "guide.md")
    with pytest.raises(gallery.PageFailed, match=r"guide.md:5: ZeroDivisionError"):
        gallery.check_guide(guide, tmp_path / "cache", "1", print)


def test_a_guide_shows_pictures_of_the_gallery(tmp_path):
    page = gallery.Page(
        "p", "A title", "A sentence.", "", {"p_1.png": b"", "p_3.png": b""}, "", 2.0
    )
    guide = written(tmp_path, "# Tour\n\n![what one sees](picture:p/1)\n", "tour.md")
    shown = "[![what one sees](gallery/p_files/p_3.png)](gallery/p.md)"
    assert shown in gallery.fill(guide, {"p": page})
    unrun = dataclasses.replace(page, pictures={}, seconds=0.0)
    assert gallery.fill(guide, {"p": unrun}).split() == ["#", "Tour"]
    with pytest.raises(gallery.PageFailed, match="tour.md: picture:p/1: the gallery has no such"):
        gallery.fill(guide, {})
    with pytest.raises(gallery.PageFailed, match="the page has 1 pictures"):
        gallery.fill(guide, {"p": dataclasses.replace(page, pictures={"p_1.png": b""})})


def test_the_tour_asks_for_pages_that_there_are():
    tour = (ROOT.parent / "tools" / "site" / "pages" / "tour.md").read_text()
    asked = re.findall(r"picture:(\w+)/", tour)
    assert len(asked) >= 9
    assert all((ROOT.parent / "examples" / "gallery" / f"{name}.py").exists() for name in asked)


def test_a_card_makes_a_page(tmp_path):
    titles = cards.write(tmp_path)
    assert sorted(titles) == pretrained.available()
    card = pretrained.card("glow_digits")
    text = (tmp_path / "glow_digits.md").read_text()
    for part in (card["sha256"], card["data"]["licence"], card["training"]["command"]):
        assert part in text
    assert all(limit in text for limit in card["limits"])
    assert f"| {card['numbers'][0]['value']:g} +- " in text
    assert "(glow_digits.md)" in (tmp_path / "index.md").read_text()


def test_every_script_has_its_place():
    scripts = {path.stem for path in (ROOT.parent / "examples" / "gallery").glob("*.py")}
    assert len(scripts) >= 25
    assert build.read_groups(scripts)
    with pytest.raises(gallery.PageFailed, match=r"differ in \['another'\]"):
        build.read_groups({*scripts, "another"})


def test_every_page_has_its_turn():
    names = list("abcdefg")
    turns = [build.chosen(names, 2, commits=n) for n in range(7)]
    assert all(len(turn) == 2 for turn in turns)
    assert set().union(*turns) == set(names)
