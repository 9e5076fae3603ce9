"""A report of numbers as a table on the terminal and as a JSON file.

Knows the report's sections and how numbers are written. Does not measure.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from girih.files import whole

COLUMNS = ("real", "reconstructed", "generated, full caption", "generated, phrase")


def write(report: dict[str, Any], path: Path) -> None:
    """The report as a JSON file that appears whole or not at all. Raises OSError."""
    with whole(path) as part:
        part.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", "utf-8")


def tables(report: dict[str, Any]) -> list[Table]:
    """The report as tables: the codec, names by retrieval, the text's share, cost."""
    return [_codec(report["codec"]), _naming(report["naming"]), _prompts(report), _tradeoff(report["tradeoff"]),
            _cost(report)]  # fmt: skip


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def rate(value: dict[str, float] | None) -> str:
    """Top-1 / top-5 in percent."""
    return "-" if value is None else f"{100 * value['top1']:.1f} / {100 * value['top5']:.1f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _codec(codec: dict[str, float]) -> Table:
    table = _table(f"Codec, {codec['pictures']} held-out pictures on white, {codec['tokens']} tokens each", "", "value")
    table.add_row("PSNR, all pixels", f"{codec['psnr']:.2f} dB")
    table.add_row("PSNR, object pixels", f"{codec['psnr_object']:.2f} dB")
    table.add_row("PSNR, mean over pictures", f"{codec['psnr_mean']:.2f} dB")
    table.add_row("codes used", f"{codec['codes_used']} of {codec['codes']} ({_percent(codec['share_used'])})")
    table.add_row("perplexity", f"{codec['perplexity']:.0f}")
    table.add_row("share of the top code", _percent(codec["top_code_share"]))
    return table


def _naming(naming: dict[str, Any]) -> Table:
    sizes = naming["concepts"]
    table = _table(
        f"Concept named by its features, top-1 / top-5 in % of {sizes['gallery']} concepts "
        f"(chance {100 / sizes['gallery']:.1f} / {500 / sizes['gallery']:.1f})",
        "gallery",
        *COLUMNS,
    )
    rows = [key for key in naming["reconstructed"] if not key.startswith("judge")]
    for key in [*rows, "judge, cross", "judge, any"]:
        table.add_row(key, *(rate(naming.get(column, {}).get(key)) for column in COLUMNS))
    table.add_row(
        "pictures (judge)",
        *(str(naming[column]["judge, any" if column != "real" else "judge, cross"]["pictures"]) for column in COLUMNS),
    )
    return table


def _prompts(report: dict[str, Any]) -> Table:
    table = _table("What a prompt decides (top-1 / top-5 in %)", "", "value")
    combined, scenes, many, recall = (report[key] for key in ("combinations", "scenes", "diversity", "recall"))
    table.add_row(
        f"held-out combinations ({combined['pictures']}): background right", _percent(combined["background_right"])
    )
    for key in ("reconstruction, any, nearest", "reconstruction, cross, centroid"):
        table.add_row(f"held-out combinations on blue: {key}", rate(combined[key]))
    for name, value in scenes.items():
        table.add_row(f"scenes, both objects named, {name}: halves; objects",
                      f"{rate(value['halves'])}; {rate(value['objects'])}")  # fmt: skip
    for name, loss in report["caption_loss"].items():
        table.add_row(
            f"nats a token, {name.replace('_', '-')} captions: right / shuffled / gap",
            f"{loss['right']:.2f} / {loss['shuffled']:.2f} / {loss['gap']:.2f}",
        )
    table.add_row(f"{many['seeds']} seeds of {many['prompt']!r}: visibly different", str(many["different"]))
    table.add_row("  real drawings that differ so: mirrored, other style",
                  f"{_percent(many['mirrored_pass'])}, {_percent(many['other_style_pass'])}")  # fmt: skip
    table.add_row("  hits among them", rate(many["hits"]))
    table.add_row("nearest training drawing: PSNR of the picture / of the codec",
                  f"{recall['nearest_psnr']:.1f} / {recall['codec_psnr']:.1f} dB")  # fmt: skip
    table.add_row("  it is the one asked for", _percent(recall["nearest_is_asked"]))
    table.add_row("  as close as the codec gets, within 1 dB (recalled)", _percent(recall["copies"]))
    return table


def _tradeoff(rows: list[dict[str, Any]]) -> Table:
    columns = "guidance", "temperature", "top-k", "phrases, judge", "different of 8", "hits"
    table = _table("Hits against diversity", *columns)
    for row in rows:
        table.add_row(f"{row['guidance_scale']:g}", f"{row['temperature']:g}", str(row["top_k"] or "all"),
                      rate(row["phrases"]), str(row["different"]), rate(row["hits"]))  # fmt: skip
    return table


def _cost(report: dict[str, Any]) -> Table:
    table = _table("One picture, one thread, a process of its own", "", "value")
    cost = report["cost"]
    if cost:
        table.add_row("seconds a picture (the first)", f"{cost['seconds']:.2f} ({cost['first_seconds']:.2f})")
        table.add_row("seconds to load", f"{cost['load_seconds']:.1f}")
        table.add_row("peak memory", f"{cost['peak_mib']:.0f} MiB")
    table.add_row("girih, torch", f"{report['girih']}, {report['torch']}")
    return table


def cad(report: dict[str, Any]) -> Table:
    """A text-to-CAD model's report: all parts, then kind by kind."""
    title = f"{report['parts']} held-out descriptions, {report['seconds']:.2f} s a part, girih {report['girih']}"
    table = _table(title, "", "parts", "valid solids", "right kind", "stated facts met", "parts with all met")
    for name, row in {"all": report, **report["kinds"]}.items():
        shares = (_percent(row[key]) for key in ("valid", "kind", "fact", "facts"))
        table.add_row(name, str(row["count"]), *shares)
    return table
