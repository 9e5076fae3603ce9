"""Progress bars on standard error for callbacks of the shape `progress(job, done, total)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """A callback that shows one bar a job; they vanish at the end. Shows nothing where no person looks on."""
    from rich.console import Console
    from rich.progress import Progress, TaskID

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as display:
        tasks: dict[str, TaskID] = {}

        def progress(job: str, done: int, total: int) -> None:
            if job not in tasks:
                tasks[job] = display.add_task(job, total=total)
            display.update(tasks[job], completed=done, total=total)

        yield progress
