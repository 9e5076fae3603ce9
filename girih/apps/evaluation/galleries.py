"""Naming a picture by retrieval: which concept's real drawings lie nearest to it.

Knows feature vectors with a concept and a style each. Does not know pictures, networks or pipelines.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from girih.apps.evaluation.features import unit


class Gallery:
    """Feature vectors float [n,d] with a concept and a style each; compared by cosine after the gallery's mean is
    taken away from both sides."""

    def __init__(self, features: np.ndarray, concepts: Sequence[str], styles: Sequence[str]):
        if not len(features) == len(concepts) == len(styles):
            raise ValueError(
                f"{len(features)} features, {len(concepts)} concepts and {len(styles)} styles do not match"
            )
        self.raw, self.mean = features, features.mean(0)
        self.features = unit(features - self.mean)
        self.concepts = np.asarray(concepts)
        self.styles = np.asarray(styles)

    def rows(self, concepts: Sequence[str], styles: Sequence[str]) -> np.ndarray:
        """The features, as they were given, of these concepts' drawings in these styles; concept by concept."""
        at = {pair: row for row, pair in enumerate(zip(self.concepts.tolist(), self.styles.tolist(), strict=True))}
        return self.raw[[at[concept, style] for concept in concepts for style in styles]]

    def place(self, features: np.ndarray) -> np.ndarray:
        """Centred unit vectors of other pictures' features [m,d]."""
        return unit(features - self.mean)

    def ranks(
        self,
        features: np.ndarray,
        concepts: Sequence[str],
        without: Sequence[str] | None = None,
        centroid: bool = False,
    ) -> np.ndarray:
        """How many other concepts lie nearer to each query than the right one: int [m], 0 = a hit.

        `without[i]`: a style left out of the gallery for query i ("cross-style"). A concept is as near as its nearest
        drawing, or with `centroid` as the mean of its drawings. A concept with no drawing left ranks last.
        """
        queries, names = self.place(features), np.unique(self.concepts)
        column_of = {str(name): column for column, name in enumerate(names)}
        if missing := [name for name in concepts if name not in column_of]:
            raise ValueError(f"concept {missing[0]!r} is not in the gallery")
        columns = np.array([column_of[name] for name in concepts])
        ranks = np.empty(len(queries), int)
        left_out = np.asarray(without if without is not None else [""] * len(queries))
        for style in np.unique(left_out):
            asked, kept = np.flatnonzero(left_out == style), self.styles != style
            scores = np.full((len(asked), len(names)), -np.inf)
            for column, name in enumerate(names):
                drawings = self.features[kept & (self.concepts == name)]
                if len(drawings):
                    targets = unit(drawings.mean(0, keepdims=True)) if centroid else drawings
                    scores[:, column] = (queries[asked] @ targets.T).max(1)
            right = scores[np.arange(len(asked)), columns[asked]]
            nearer = (scores > right[:, None]).sum(1)
            ranks[asked] = np.where(np.isfinite(right), nearer, len(names))
        return ranks


def hits(ranks: np.ndarray) -> dict[str, float]:
    """Shares of the queries whose concept is the nearest, and among the five nearest."""
    return {"top1": float((ranks < 1).mean()), "top5": float((ranks < 5).mean()), "pictures": len(ranks)}
