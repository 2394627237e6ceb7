"""Builds the site: `tools/site/build` calls this in the environment that has what it needs.

    tools/site/build              # everything, to build/site/index.html
    tools/site/build --some 2     # runs two pages of the gallery, in rotation: the check of CI
    tools/site/build --pages two_moons masks      # runs these whatever is kept of them

The source is put together in `build/site-source`, of `tools/site/pages`, the docstrings and the
gallery. A page of the gallery is run when its script has changed (`build/site-gallery` keeps the
rest); a script that fails stops the build with its line, and so does a broken link.
"""

import argparse
import concurrent.futures
import json
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(pathlib.Path(__file__).parent)]

import api  # noqa: E402
import gallery  # noqa: E402

from tfp_flows.version import __version__  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = ROOT / "build" / "site-source"
CACHE = ROOT / "build" / "site-gallery"
SITE = ROOT / "build" / "site"


def say(text):
    """Prints at once."""
    print(text, flush=True)


def chosen(names, some):
    """The `some` names whose turn it is: by the commit, so that each has its turn."""
    commit = subprocess.run(
        ["git", "rev-list", "--count", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    first = int(commit or 0) * some
    return {names[n % len(names)] for n in range(first, first + some)}


def make_gallery(folder, some, again):
    """Runs what has changed, or `some` of it, and writes the pages."""
    groups = json.loads((HERE / "gallery.json").read_text(encoding="utf-8"))
    scripts = {s.stem: s for s in sorted((ROOT / "examples" / "gallery").glob("*.py"))}
    listed = [name for names in groups.values() for name in names]
    if sorted(listed) != sorted(scripts):
        odd = sorted(set(listed) ^ set(scripts))
        raise gallery.PageFailed(f"tools/site/gallery.json and examples/gallery differ in {odd}.")
    CACHE.mkdir(parents=True, exist_ok=True)
    for name in again:
        for path in CACHE.glob(f"{name}-*"):
            shutil.rmtree(path)
    wanted = set(listed) if some is None else chosen(listed, some)

    def page(name):
        return gallery.load_or_run(scripts[name], CACHE, __version__, say, run=name in wanted)

    # Two at a time: much of a page is tracing, which takes one core.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        pages = dict(zip(listed, pool.map(page, listed), strict=True))
    gallery.write(pages, groups, folder)
    total = sum(page.seconds for page in pages.values())
    say(f"{len(pages)} pages of the gallery; to run them took {total:.0f} s")


def main():
    """Builds; returns the status of the generator."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--some", type=int, help="run so many pages; the rest without outputs")
    parser.add_argument("--pages", nargs="*", default=[], help="run these again")
    args = parser.parse_args()
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(HERE / "pages", SOURCE / "docs")
    for name in ("mkdocs.yml", "doctests.py"):
        shutil.copy(HERE / name, SOURCE / name)
    api.write(SOURCE / "docs" / "api")
    try:
        make_gallery(SOURCE / "docs" / "gallery", args.some, args.pages)
    except gallery.PageFailed as error:
        raise SystemExit(f"The site was not built. {error}") from None
    generator = pathlib.Path(sys.executable).with_name("zensical")
    status = subprocess.run([generator, "build", "--strict"], cwd=SOURCE, check=False).returncode
    if status == 0:
        shutil.rmtree(SITE, ignore_errors=True)
        shutil.move(SOURCE / "site", SITE)
        say(f"The site is in {SITE / 'index.html'}")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
