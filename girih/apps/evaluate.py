"""`girih eval`: every number the model cards state, measured from a model (and, for pictures, a picture set).

Knows the order of the measures and where the picture set lies. The measures are in girih/apps/evaluation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from girih.apps.evaluation.pictures import Progress
from girih.training.data.pictures import PictureSet


def run(
    model: str = "image",
    n: int = 100,
    json_path: Path | None = None,
    data: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a model, print the tables, write `json_path` if given, and return the report.

    `n`: pictures drawn for each measure. `data`: a picture set of the model's size; by default the one in the user's
    cache, built if it is not there. `progress(job, done, total)` is called now and then.
    Raises ValueError (n < 2, a set of another size, missing packages) or OSError.
    """
    from rich.console import Console

    import girih
    from girih.apps.evaluation import cost, report

    check(n, json_path)
    pipe = girih.load(model)
    pipe.set_progress_bar_config(disable=True)
    found = evaluate(pipe, picture_set(pipe, data, progress), n, progress)
    found = {"model": model, **found, "cost": cost.measure(model)}
    console = Console()
    for table in report.tables(found):
        console.print(table)
    if json_path:
        report.write(found, json_path)
    return found


def run_cad(
    model: str = "cad", n: int = 500, json_path: Path | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """The same for a text-to-CAD model, on ``n`` held-out descriptions."""
    from rich.console import Console

    import girih
    from girih.apps.evaluation import cad, report

    check(n, json_path)
    pipe = girih.load(model)
    pipe.set_progress_bar_config(disable=True)
    found = {"model": model, "girih": girih.__version__, **cad.measure(pipe, n, progress)}
    Console().print(report.cad(found))
    if json_path:
        report.write(found, json_path)
    return found


def check(n: int, json_path: Path | None) -> None:
    """Raises ValueError or OSError for what can be told wrong before minutes of work."""
    if n < 2:
        raise ValueError(f"n must be at least 2, got {n}")
    if json_path and not json_path.absolute().parent.is_dir():
        raise FileNotFoundError(f"no folder {json_path.absolute().parent} to write {json_path.name} into")


def picture_set(pipe: Any, data: Path | None = None, progress: Progress | None = None) -> PictureSet:
    """The picture set in `data`, or the default one of the pipeline's size, built in the user's cache if missing."""
    from girih.apps.evaluation.features import cache_folder

    size = int(pipe.codec.config.sample_size)
    if data is None:
        data = cache_folder() / f"emoji-{size}"
        if not data.exists():
            from girih.training.data.emoji import build

            build(data, size=size, progress=progress)
    pictures = PictureSet(data)
    if pictures.size != size:
        raise ValueError(f"{data} holds pictures of {pictures.size} px, the model draws {size} px")
    return pictures


def evaluate(pipe: Any, pictures: PictureSet, n: int, progress: Progress | None = None) -> dict[str, Any]:
    """Every measure but the cost of a picture, for a loaded pipeline."""
    import torch

    import girih
    from girih.apps.evaluation import codec, concepts, prompts
    from girih.apps.evaluation.naming import Judges

    judges = Judges(pipe, pictures, progress)
    listed = concepts.listed(pictures)
    naming: dict[str, Any] = {"concepts": {"gallery": len(judges.labels), "listed": len(listed)}}
    naming.update(judges.ceilings(listed[:n]))
    naming["generated, full caption"], recall = prompts.trained(judges, n)
    ruler = prompts.Ruler.calibrated(judges)
    naming["generated, phrase"] = prompts.phrased(judges, n)
    return {
        "girih": girih.__version__,
        "torch": torch.__version__,
        "n": n,
        "codec": codec.measure(pipe, pictures),
        "naming": naming,
        "combinations": prompts.combinations(judges, n),
        "scenes": prompts.scenes(judges, max(2, n // 2)),
        "caption_loss": prompts.losses(judges, n),
        "diversity": prompts.diversity(judges, ruler),
        "tradeoff": prompts.tradeoff(judges, ruler, n),
        "recall": recall,
    }
