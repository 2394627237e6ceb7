"""Pages of the API: one for each room, with every public name in it."""

import importlib
import inspect
import pkgutil

import tfp_flows


def rooms():
    """The package and its rooms, as module names."""
    found = [m.name for m in pkgutil.iter_modules(tfp_flows.__path__) if m.ispkg]
    return ["tfp_flows", *(f"tfp_flows.{name}" for name in sorted(found))]


def write(folder):
    """Writes a page a room; returns the names of the rooms that have public names."""
    folder.mkdir(parents=True, exist_ok=True)
    index, written = ["# API\n"], []
    for room in rooms():
        module = importlib.import_module(room)
        names = [
            n for n in getattr(module, "__all__", ()) if not inspect.ismodule(getattr(module, n))
        ]
        if not names:
            continue
        written.append(room)
        head = inspect.getdoc(module) or ""
        body = "\n\n".join(f"::: {room}.{name}" for name in names)
        (folder / f"{room}.md").write_text(f"# {room}\n\n{head}\n\n{body}\n", encoding="utf-8")
        index.append(f"- [{room}]({room}.md): {head.splitlines()[0] if head else ''}")
    (folder / "index.md").write_text("\n".join(index) + "\n", encoding="utf-8")
    return written
