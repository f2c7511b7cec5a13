"""Small data of the tasks."""

from __future__ import annotations

import json
from pathlib import Path

PAIRS = [
    {"source": source, "target": target}
    for source, target in (
        ("Save the file.", "Enregistrez le fichier."),
        ("Close the window.", "Fermez la fenêtre."),
        ("Open the Format menu.", "Ouvrez le menu Format."),
        ("Delete the row.", "Supprimez la ligne."),
        ("Insert a table.", "Insérez un tableau."),
        ("Print the page.", "Imprimez la page."),
    )
]


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_pairs(folder: Path) -> Path:
    """Writes a folder of the task of translation and returns it."""
    for split, rows in (("train", PAIRS * 3), ("val", PAIRS[:2]), ("test", PAIRS)):
        write_lines(folder / f"{split}.jsonl", rows)
    return folder
