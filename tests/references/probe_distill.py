"""Distillation through class logits, one image and one class at a time, in Python's own floats."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def softmax(logits: Sequence[float], temperature: float) -> list[float]:
    powers = [math.exp(logit / temperature) for logit in logits]
    return [power / sum(powers) for power in powers]


def probe_logits(teacher_features: Rows, weight: Rows, bias: Sequence[float]) -> list[list[float]]:
    """The linear layer on features with mean 0 and variance 1 per coordinate (1e-5 is added to the variance)."""
    columns = []
    for column in zip(*teacher_features):
        mean = sum(column) / len(column)
        variance = sum((x - mean) ** 2 for x in column) / len(column)
        columns.append([(x - mean) / math.sqrt(variance + 1e-5) for x in column])
    return [[sum(w * x for w, x in zip(row, g)) + b for row, b in zip(weight, bias)] for g in zip(*columns)]


def divergence(student: Rows, teacher: Rows, temperature: float) -> float:
    """T^2 times the mean over the images of sum_c q_c log(q_c / p_c), q the teacher's, p the student's."""
    total = 0.0
    for s, t in zip(student, teacher):
        for q, p in zip(softmax(t, temperature), softmax(s, temperature)):
            total += q * math.log(q / p)
    return temperature**2 * total / len(student)


def divergence_gradient(student: Rows, teacher: Rows, temperature: float) -> list[list[float]]:
    """By the student's logits: T (p - q) / images, from the derivative of a softmax by hand."""
    return [
        [temperature * (p - q) / len(student) for p, q in zip(softmax(s, temperature), softmax(t, temperature))]
        for s, t in zip(student, teacher)
    ]


def cross_entropy(logits: Rows, targets: Sequence[int]) -> float:
    return -sum(math.log(softmax(row, 1.0)[target]) for row, target in zip(logits, targets)) / len(targets)


def cross_entropy_bias_gradient(logits: Rows, targets: Sequence[int]) -> list[float]:
    """By the bias: the mean over the images of p_c minus one for the image's own class."""
    rows = [softmax(row, 1.0) for row in logits]
    return [sum(row[c] - (target == c) for row, target in zip(rows, targets)) / len(rows) for c in range(len(rows[0]))]
