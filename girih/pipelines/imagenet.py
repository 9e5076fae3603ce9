"""Class labels of class models, by number or by ImageNet name.

Knows the names of ImageNet-1k's 1,000 classes in their usual order, that of their sorted WordNet 3.0 synsets: a line of
imagenet.txt is a class, the words of its synset. Does not know models.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from girih.names import unknown


@cache
def class_names() -> list[str]:
    """The words of each class by number: entry 1 is "goldfish, Carassius auratus"."""
    return (Path(__file__).parent / "imagenet.txt").read_text("utf-8").splitlines()


@cache
def _numbers() -> dict[str, list[int]]:
    """Name in lower case -> the classes it stands for. A class's first word comes before another class's synonym."""
    first, others = defaultdict(list), defaultdict(list)
    for number, line in enumerate(class_names()):
        head, *rest = (word.strip().lower() for word in line.split(","))
        first[head].append(number)
        for word in rest:
            others[word].append(number)
    return {**others, **first}


def class_numbers(labels: Any, classes: int) -> list[int]:
    """Class numbers of a call's ``class_labels``: a number, a name, or several of them; ``classes``: the model's count.

    Raises ValueError for a number out of range, a name that is not known (with the nearest) or has two meanings.
    """
    several = isinstance(labels, Iterable) and not isinstance(labels, str) and getattr(labels, "ndim", 1) > 0
    found = [_number(label, classes) for label in (labels if several else [labels])]
    if not found:
        raise ValueError("class_labels must not be empty")
    return found


def _number(label: Any, classes: int) -> int:
    if not isinstance(label, str):
        if not hasattr(label, "__index__") or not 0 <= int(label) < classes:
            raise ValueError(f"class label {label} is not a whole number from 0 to {classes - 1}")
        return int(label)
    if classes != len(class_names()):
        raise ValueError(
            f"class label {label!r} is a name, and names are ImageNet's: this model has {classes} classes of its own; "
            f"give numbers from 0 to {classes - 1}")
    numbers = _numbers().get(" ".join(label.replace("_", " ").lower().split()))
    if numbers is None:
        raise unknown("ImageNet class", label, _numbers())
    if len(numbers) > 1:
        listed = " and ".join(f"{number} ({class_names()[number]})" for number in numbers)
        raise ValueError(f"the class name {label!r} means several: {listed}; give the number or another name")
    return numbers[0]
