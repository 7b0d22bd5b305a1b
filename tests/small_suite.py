"""A suite of two rows and two sizes, as a user writes it."""

from __future__ import annotations

SMALL = """
name: mine
title: My table
tasks: [boolq, piqa]
profiles:
  embedded:
    model: smollm2-135m
    seeds: [4, 5]
    training: {batch_size: 2, learning_rate: 0.5}
    evaluation: {items: 7}
    origin: {batch_size: a guess}
    size: tiny
    sizes:
      tiny: {training: {train_items: 3}}
      huge: {seeds: [6], training: {train_items: 999, batch_size: 9}}
    rows:
      - none
      - {method: lora, label: mine, settings: {r: 2}, training: {epochs: 4}, origin: {r: a wish}}
"""

ROWS_BY_SIZE = SMALL.replace(
    "{seeds: [6], training: {train_items: 999, batch_size: 9}}",
    "{seeds: [6], rows: [dora, {method: lora, label: mine, training: {learning_rate: 0.25}}]}",
)
