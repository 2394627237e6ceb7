"""The README's programs run as they stand."""

import pathlib
import re

import matplotlib

matplotlib.use("Agg")

README = pathlib.Path(__file__).parent.parent / "README.md"


def test_the_programs_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # They write files.
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 4
    names = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert names["samples"].shape == (500, 2)
    assert names["latent"].shape == (2000, 2)
    assert (tmp_path / "served" / "saved_model.pb").exists()


def test_the_quick_start_is_short():
    block = re.search(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL).group(1)
    assert sum(bool(line.strip()) for line in block.splitlines()) <= 15


def test_what_it_names_exists():
    text = README.read_text()
    root = README.parent
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", text) + re.findall(r"`(tools/[\w.]+)`", text):
        assert (root / path).exists(), path
