"""Pages of the gallery: the scripts of `examples/gallery`, run, with what they print and draw.

A script is in cells (`# %%` for code, `# %% [markdown]` for text), of which the first is text and
begins with the page's title. Each runs in a process of its own. What it gave is kept by a hash of
the script and of the package's version, so that a build runs what has changed.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import time

import jupytext
import nbclient
import nbconvert
import nbformat

# A page that takes longer is no page of a gallery.
TIMEOUT = 180


class PageFailed(RuntimeError):
    """A script failed: its file, line and error."""


@dataclasses.dataclass(frozen=True)
class Page:
    """A script that was run."""

    name: str
    title: str
    summary: str
    markdown: str
    pictures: dict  # name -> bytes
    notebook: str
    seconds: float

    @property
    def thumbnail(self):
        """Name of the picture that stands for the page, or `None`."""
        return next(iter(self.pictures), None)


def read(script):
    """Returns the notebook of a script, whose title and first sentence are checked."""
    notebook = jupytext.read(script)
    first = notebook.cells[0].source if notebook.cells else ""
    match = re.match(r"# (.+)\n\n(.+?)(\n\n|$)", first, re.DOTALL)
    if not match or notebook.cells[0].cell_type != "markdown":
        raise PageFailed(
            f"{script}:1: expected a first cell '# %% [markdown]' of a title ('# ...') and a "
            f"paragraph, got {first[:60]!r}."
        )
    return notebook, match[1].strip(), " ".join(match[2].split())


def key(script, version):
    """What the outputs of a script are kept by."""
    return hashlib.sha256(script.read_bytes() + version.encode()).hexdigest()[:20]


def line_of(script, cell, error):
    """The line of a script at which a cell failed."""
    lines = script.read_text(encoding="utf-8").splitlines()
    source = cell.source.splitlines()
    start = next(
        n for n in range(len(lines)) if lines[n : n + len(source)] == source or n == len(lines) - 1
    )
    # The last frame in the cell itself: IPython writes "Cell In[3], line 2".
    inside = re.findall(r"Cell In\[\d+\], line (\d+)", error)
    return start + (int(inside[-1]) if inside else 1)


def execute(script, notebook, folder):
    """Runs the cells in a process of their own, in `folder`; returns how many seconds it took."""
    started = time.monotonic()
    kernel = nbclient.NotebookClient(
        notebook, timeout=TIMEOUT, resources={"metadata": {"path": str(folder)}}
    )
    try:
        kernel.execute()
    except nbclient.exceptions.CellExecutionError as error:
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
        failed = next(
            c for c in notebook.cells if any(o.output_type == "error" for o in c.get("outputs", ()))
        )
        message = f"{script}:{line_of(script, failed, text)}: {error.ename}: {error.evalue}"
        raise PageFailed(message) from error
    except nbclient.exceptions.CellTimeoutError as error:
        raise PageFailed(
            f"{script}: a cell took longer than {TIMEOUT} s. Make it smaller."
        ) from error
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in map(_without_chatter, cell.outputs) if o]
    return time.monotonic() - started


def _without_chatter(output):
    """An output without what libraries log, or `None` if nothing is left."""
    if output.get("name") == "stderr":
        return None
    if output.get("name") == "stdout":  # Where TensorFlow logs, in a notebook.
        output.text = re.sub(r"^(INFO|WARNING):tensorflow:.*\n", "", output.text, flags=re.M)
        # Progress bars, which are there or not by how busy the machine is.
        output.text = re.sub(r"^.*\u2501.*\n", "", output.text, flags=re.M)
        return output if output.text else None
    return output


def page_of(script, folder=None):
    """The `Page` of a script, run in `folder`; without one as it is written."""
    notebook, title, summary = read(script)
    seconds = 0.0 if folder is None else execute(script, notebook, folder)
    exporter = nbconvert.MarkdownExporter()
    name = script.stem
    markdown, found = exporter.from_notebook_node(
        notebook, resources={"unique_key": name, "output_files_dir": f"{name}_files"}
    )
    pictures = {
        pathlib.PurePath(path).name: data
        for path, data in found["outputs"].items()
        if path.endswith(".png")
    }
    outputs = [o for c in notebook.cells for o in c.get("outputs", ())]
    if folder and not pictures and not re.search(r"\d", str(outputs)):
        raise PageFailed(f"{script}: the page ends in no picture and no number. Print or draw one.")
    return Page(name, title, summary, markdown, pictures, nbformat.writes(notebook), seconds)


def load_or_run(script, cache, version, say, run=True):
    """The page of a script, from `cache` if it was run before; not run now unless it may `run`."""
    folder = cache / f"{script.stem}-{key(script, version)}"
    if not (folder / "page.json").exists():
        if not run:
            return page_of(script)
        say(f"running {script.name} ...")
        work = cache / f"{script.stem}-running-{os.getpid()}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        page = page_of(script.resolve(), work)
        for other in cache.glob(f"{script.stem}-*"):
            shutil.rmtree(other)
        (folder / "pictures").mkdir(parents=True)
        for name, data in page.pictures.items():
            (folder / "pictures" / name).write_bytes(data)
        rest = {**dataclasses.asdict(page), "pictures": list(page.pictures)}
        (folder / "page.json").write_text(json.dumps(rest), encoding="utf-8")
        say(f"ran {script.name} in {page.seconds:.0f} s")
    rest = json.loads((folder / "page.json").read_text(encoding="utf-8"))
    pictures = {name: (folder / "pictures" / name).read_bytes() for name in rest["pictures"]}
    return Page(**{**rest, "pictures": pictures})


def check_guide(guide, cache, version, say, run=True):
    """Runs the Python of a guide, unless it was run before or may not `run` now."""
    mark = cache / f"{guide.stem}-guide-{key(guide, version)}"
    notebook = jupytext.read(guide)
    if mark.exists() or not run or all(c.cell_type != "code" for c in notebook.cells):
        return
    work = cache / f"{guide.stem}-running-{os.getpid()}"
    work.mkdir(parents=True, exist_ok=True)
    seconds = execute(guide, notebook, work)
    shutil.rmtree(work)
    for other in cache.glob(f"{guide.stem}-guide-*"):
        shutil.rmtree(other)
    mark.mkdir()
    say(f"ran {guide.name} in {seconds:.0f} s")


def fill(guide, pages):
    """The text of a guide, with the pictures of the gallery where it asks for them.

    `![what one sees](picture:masks/1)` is the second picture of the page `masks`; of a page that
    was not run it is left out.

    Args:
      guide: `pathlib.Path`.
      pages: dictionary of `Page`s by name.
    """

    def link(match):
        text, name, number = match[1], match[2], int(match[3])
        if name not in pages:
            raise PageFailed(f"{guide}: picture:{name}/{number}: the gallery has no such page.")
        pictures = list(pages[name].pictures)
        if not pages[name].seconds:
            return ""
        if number >= len(pictures):
            raise PageFailed(
                f"{guide}: picture:{name}/{number}: the page has {len(pictures)} pictures, the "
                "first is number 0."
            )
        return f"[![{text}](gallery/{name}_files/{pictures[number]})](gallery/{name}.md)"

    return re.sub(r"!\[(.+?)\]\(picture:(\w+)/(\d+)\)", link, guide.read_text(encoding="utf-8"))


def write(pages, groups, folder):
    """Writes the pages and their index to a folder of the site's source.

    Args:
      pages: dictionary of `Page`s by name.
      groups: dictionary from a heading to the names of its pages, in order.
      folder: `pathlib.Path`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for page in pages.values():
        (folder / f"{page.name}_files").mkdir(exist_ok=True)
        for name, data in page.pictures.items():
            (folder / f"{page.name}_files" / name).write_bytes(data)
        (folder / f"{page.name}.ipynb").write_text(page.notebook, encoding="utf-8")
        ran = f"Ran in {page.seconds:.0f} s. " if page.seconds else "Not run in this build. "
        foot = (
            f"\n\n---\n\n{ran}"
            f"[Notebook]({page.name}.ipynb){{download}} of `examples/gallery/{page.name}.py`.\n"
        )
        text = re.sub(r"!\[(png|svg)\]", f"![{page.title}]", page.markdown)
        (folder / f"{page.name}.md").write_text(text + foot, encoding="utf-8")
    index = ["# Gallery\n"]
    for heading, names in groups.items():
        index.append(f'\n## {heading}\n\n<div class="grid cards" markdown>\n')
        for name in names:
            page = pages[name]
            picture = (
                f"[![]({name}_files/{page.thumbnail})]({name}.md)\n\n    " if page.thumbnail else ""
            )
            index.append(f"-   {picture}**[{page.title}]({name}.md)**\n\n    {page.summary}\n")
        index.append("\n</div>\n")
    (folder / "index.md").write_text("\n".join(index), encoding="utf-8")
