"""Builds the site: `tools/site/build` calls this in the environment that has what it needs.

    tools/site/build              # everything, to build/site/index.html
    tools/site/build --some 2     # runs two pages of the gallery, in rotation: the check of CI
    tools/site/build --pages two_moons masks      # runs these whatever is kept of them

The source is put together in `build/site-source`, of `tools/site/pages`, the docstrings, the book
of results and the gallery. A page of the gallery is run when its script has changed
(`build/site-gallery` keeps the rest); a script that fails stops the build with its line, and so
does a broken link.
"""

import argparse
import concurrent.futures
import json
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT), str(HERE), str(ROOT / "tools" / "results")]

import api  # noqa: E402
import book  # noqa: E402
import cards  # noqa: E402
import gallery  # noqa: E402

from tfp_flows.version import __version__  # noqa: E402

SOURCE = ROOT / "build" / "site-source"
CACHE = ROOT / "build" / "site-gallery"
SITE = ROOT / "build" / "site"


def say(text):
    """Prints at once."""
    print(text, flush=True)


def chosen(names, some, commits=None):
    """The `some` names whose turn it is: by the number of commits, so that each has its turn."""
    if commits is None:
        count = ["git", "rev-list", "--count", "HEAD"]
        found = subprocess.run(count, cwd=ROOT, capture_output=True, text=True, check=False)
        commits = int(found.stdout or 0)
    return {names[n % len(names)] for n in range(commits * some, (commits + 1) * some)}


def read_groups(scripts):
    """The groups of the gallery, in which every script has its place."""
    groups = json.loads((HERE / "gallery.json").read_text(encoding="utf-8"))
    listed = [name for names in groups.values() for name in names]
    if sorted(listed) != sorted(scripts):
        odd = sorted(set(listed) ^ set(scripts))
        raise gallery.PageFailed(f"tools/site/gallery.json and examples/gallery differ in {odd}.")
    return groups


def make_gallery(folder, some, again):
    """Runs what has changed, or `some` of it; writes the pages, and returns them and the groups."""
    scripts = {s.stem: s for s in sorted((ROOT / "examples" / "gallery").glob("*.py"))}
    guides = {g.stem: g for g in sorted((HERE / "pages").glob("*.md"))}
    groups = read_groups(scripts)
    listed = [name for names in groups.values() for name in names]
    CACHE.mkdir(parents=True, exist_ok=True)
    for name in again:
        for path in CACHE.glob(f"{name}-*"):
            shutil.rmtree(path)
    everything = [*listed, *guides]
    wanted = set(everything) if some is None else chosen(everything, some)

    def make(name):
        run = name in wanted
        if name in guides:
            return gallery.check_guide(guides[name], CACHE, __version__, say, run)
        return gallery.load_or_run(scripts[name], CACHE, __version__, say, run)

    # One more than two cores: much of a page is tracing, which takes one of them.
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        made = dict(zip(everything, pool.map(make, everything), strict=True))
    pages = {name: made[name] for name in listed}
    gallery.write(pages, groups, folder)
    tour = gallery.fill(HERE / "pages" / "tour.md", pages)
    (folder.parent / "tour.md").write_text(tour, encoding="utf-8")
    total = sum(page.seconds for page in pages.values())
    say(f"{len(pages)} pages of the gallery; to run them took {total:.0f} s")
    return pages, groups


def copy_documents(docs):
    """The results and the changes, with their pictures."""
    for name in ("RESULTS.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, docs / name.lower())
    shutil.copytree(ROOT / "examples" / "pictures", docs / "examples" / "pictures")


def make_book(docs):
    """The chapters of the book of results; returns the lines of `mkdocs.yml` that list them."""
    try:
        chapters, text = book.write(docs / "book")
    except book.record.ResultError as error:
        raise SystemExit(f"The site was not built. {error}") from None
    say(text)
    pages = ["results.md", "book/index.md", *(f"book/{name}.md" for name in chapters)]
    return "\n".join(["  - Results:", *(f"    - {page}" for page in pages)])


def navigation(pages, groups, models, rooms):
    """The lines of `mkdocs.yml` that list the pages of the gallery, the models and the API."""
    lines = ["  - Gallery:", "    - gallery/index.md"]
    for heading, names in groups.items():
        lines.append(f"    - {heading}:")
        lines += [f"      - {json.dumps(pages[n].title)}: gallery/{n}.md" for n in names]
    lines += ["  - Models:", "    - models/index.md"]
    lines += [f"    - {json.dumps(title)}: models/{name}.md" for name, title in models.items()]
    lines += ["  - API:", "    - api/index.md", *(f"    - {r}: api/{r}.md" for r in rooms)]
    return "\n".join(lines)


def main():
    """Builds; returns the status of the generator."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--some", type=int, help="run so many pages; the rest without outputs")
    parser.add_argument("--pages", nargs="*", default=[], help="run these again")
    args = parser.parse_args()
    docs = SOURCE / "docs"
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(HERE / "pages", docs)
    copy_documents(docs)
    results = make_book(docs)
    rooms, models = api.write(docs / "api"), cards.write(docs / "models")
    try:
        pages, groups = make_gallery(docs / "gallery", args.some, args.pages)
    except gallery.PageFailed as error:
        raise SystemExit(f"The site was not built. {error}") from None
    config = (HERE / "mkdocs.yml").read_text(encoding="utf-8")
    config = config.replace("  # GALLERY AND API", navigation(pages, groups, models, rooms))
    config = config.replace("  # RESULTS", results)
    (SOURCE / "mkdocs.yml").write_text(config, encoding="utf-8")
    shutil.copy(HERE / "doctests.py", SOURCE)
    generator = pathlib.Path(sys.executable).with_name("zensical")
    status = subprocess.run([generator, "build", "--strict"], cwd=SOURCE, check=False).returncode
    if status == 0:
        shutil.rmtree(SITE, ignore_errors=True)
        shutil.move(SOURCE / "site", SITE)
        say(f"The site is in {SITE / 'index.html'}")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
