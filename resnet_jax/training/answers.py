"""What a network answered on a split, example by example, and what that says of it."""

import dataclasses
from typing import Any

import numpy as np

CALIBRATION_BINS = 15


@dataclasses.dataclass
class Answers:
    """The answers to a split, kept batch by batch.

    Attributes:
      labels: int32 [n] of each batch, the true class.
      predictions: int32 [n], the class of the highest logit; -1 where a logit is no number.
      confidences: float32 [n], the probability of that class.
      places: int32 [n], of the examples in the split.
    """

    labels: list[np.ndarray] = dataclasses.field(default_factory=list)
    predictions: list[np.ndarray] = dataclasses.field(default_factory=list)
    confidences: list[np.ndarray] = dataclasses.field(default_factory=list)
    places: list[np.ndarray] = dataclasses.field(default_factory=list)

    def add(self, scores: Any) -> None:
        """Adds a batch's `step.Scores`, but for the rows where the mask is False."""
        self.labels.append(scores.label[scores.mask])
        self.predictions.append(scores.prediction[scores.mask])
        self.confidences.append(scores.confidence[scores.mask])
        self.places.append(scores.index[scores.mask])

    def confusion(self, num_classes: int) -> np.ndarray:
        """Returns how often each class [row] was taken for each [column], int64 [K, K].

        K is `num_classes`, or more where a network has more classes than the data.
        """
        labels, predictions = np.concatenate(self.labels), np.concatenate(self.predictions)
        size = max(num_classes, predictions.max(initial=-1) + 1)
        answered = predictions >= 0
        pairs = labels[answered].astype(np.int64) * size + predictions[answered]
        return np.bincount(pairs, minlength=size * size).reshape(size, size)

    def mistakes(self) -> list[tuple[int, int, int]]:
        """Returns (class, answer, images) of all pairs that differ, the most frequent first; of
        equal ones that of the lower class, then of the lower answer.
        """
        labels, predictions = np.concatenate(self.labels), np.concatenate(self.predictions)
        wrong = (predictions >= 0) & (predictions != labels)
        pairs = np.stack([labels, predictions], 1)[wrong]
        pairs, counts = np.unique(pairs, axis=0, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        rows = np.column_stack([pairs, counts])[order].tolist()
        return [(label, answer, count) for label, answer, count in rows]

    def per_class(self, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns of each class how many examples it has and how many were right, int64 [K]."""
        labels, predictions = np.concatenate(self.labels), np.concatenate(self.predictions)
        images = np.bincount(labels, minlength=num_classes)
        return images, np.bincount(labels[labels == predictions], minlength=num_classes)

    def calibration(
        self, bins: int = CALIBRATION_BINS
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns of bins of equal width by confidence the examples, how many were right, and the
        sum of their confidences, float64 [bins] each.
        """
        labels, predictions = np.concatenate(self.labels), np.concatenate(self.predictions)
        confidences = np.concatenate(self.confidences).astype(np.float64)
        places = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
        counts = np.bincount(places, minlength=bins).astype(np.float64)
        right = np.bincount(places, labels == predictions, minlength=bins)
        return counts, right, np.bincount(places, confidences, minlength=bins)

    def calibration_error(self, bins: int = CALIBRATION_BINS) -> float:
        """Returns the expected calibration error, a share.

        It is the mean over examples of how far the accuracy of their bin is from the bin's mean
        confidence (Guo et al. 2017, section 2, equation 3).
        """
        counts, right, claimed = self.calibration(bins)
        return float(np.abs(right - claimed).sum() / max(counts.sum(), 1))
