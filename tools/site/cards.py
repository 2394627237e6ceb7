"""Pages of the models that come with the package: one a card."""

from tfp_flows import pretrained


def page(card):
    """The Markdown of a card, as `pretrained.card` gives it."""
    data, training = card["data"], card["training"]
    versions = ", ".join(f"{name} {version}" for name, version in training["versions"].items())
    numbers = [
        f"| {n['what']} | {n['value']:g} +- {n['standard_error']:g} | {n['unit']} | {n['rows']:,} |"
        for n in card["numbers"]
    ]
    return "\n".join(
        [
            f"# {card['title']}\n",
            f"{card['what']}\n",
            "```python",
            "import numpy as np\n",
            "from tfp_flows import pretrained\n",
            f'model = pretrained.load("{card["name"]}")',
            f"{card['example']}",
            "```\n",
            "| | |\n|---|---|",
            f"| rows | {card['data_shape']} |",
            f"| context | {card['context']} |",
            f"| weights | {card['weights']:,} |",
            f"| file | {card['bytes']:,} bytes |",
            f"| SHA-256 | `{card['sha256']}` |\n",
            "## What it scores\n",
            "The mean over rows, and its standard error.\n",
            "| what | value | unit | rows |\n|---|---|---|---|",
            *numbers,
            "\n## What it is not for\n",
            *(f"- {limit}" for limit in card["limits"]),
            "\n## Data\n",
            f"{data['name']}.\n",
            f"Licence: {data['licence']}.\n",
            f"Split: {data['split']}.\n",
            "## How it was trained\n",
            f"```\n{training['command']}\n```\n",
            f"{training['budget']}; seed {training['seed']}; {training['minutes']:g} minutes, data "
            f"and scores included, on two shared cores. Versions: {versions}.\n",
        ]
    )


def write(folder):
    """Writes a page a model and their index; returns the titles by name."""
    folder.mkdir(parents=True, exist_ok=True)
    cards = [pretrained.card(name) for name in pretrained.available()]
    index = [
        "# Models\n",
        "Trained flows that come with the package, small, to try things on and to go on from: "
        "`tfp_flows.pretrained.load(name)` needs no network, and compares the file with the "
        "SHA-256 on its card first.\n",
        "| name | model | scores | unit |\n|---|---|---|---|",
    ]
    for card in cards:
        (folder / f"{card['name']}.md").write_text(page(card), encoding="utf-8")
        first = card["numbers"][0]
        index.append(
            f"| `{card['name']}` | [{card['title']}]({card['name']}.md) | {first['value']:g} +- "
            f"{first['standard_error']:g} | {first['unit']} |"
        )
    (folder / "index.md").write_text("\n".join(index) + "\n", encoding="utf-8")
    return {card["name"]: card["title"] for card in cards}
