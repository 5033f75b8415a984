"""Adaptive models of symbols and of the places of non-zeros, the same for encoder and decoder.

They learn from the data coded so far, in growing blocks, so that they need no tables in the file and run vectorised.
Shapes: R rows, C columns of a weight seen as a matrix; K symbols.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kondense.codec.neighbours import DIRECTIONS, Pass
from kondense.codec.streams import Floats, Integers, Stream

FIRST_BLOCK = 24  # symbols coded before the first update
SYMBOL_GROWTH = 4  # a block of symbols is a quarter of those before,
ROW_GROWTH = 16  # a block of rows a sixteenth
COUNTED = 2**17  # symbols that are counted at once
FLAT_WEIGHT = 24.0  # total count of a uniform prior
NEIGHBOUR_PRIOR = 4.0  # prior count of non-zeros in the effect of neighbours


class Frequencies:
    """The frequencies of symbols in [0, K), learnt while coding."""

    def __init__(self, prior_K: Floats) -> None:
        """Start from positive counts ``prior_K``."""
        self._weight_K = prior_K
        self._coded = 0

    def code(
        self, stream: Stream, count: int, symbols_N: NDArray[Any] | None, dtype: type[np.integer[Any]] = np.int32
    ) -> NDArray[Any]:
        """Code ``count`` symbols and return them.

        Args:
            stream: a Writer, a Meter or a Reader.
            count: N.
            symbols_N: the symbols when writing, of any integer type; None when reading.
            dtype: of the result when reading.
        """
        if len(self._weight_K) == 1:
            return stream.symbols(self._weight_K, count, symbols_N)
        stream.expect(count)
        coded_N = np.empty(count, dtype) if symbols_N is None else symbols_N
        start = 0
        while start < count:
            stop = min(count, start + max(FIRST_BLOCK, self._coded // SYMBOL_GROWTH))
            known = None if symbols_N is None else symbols_N[start:stop].astype(np.int32, copy=False)
            block = stream.symbols(self._weight_K, stop - start, known)
            if symbols_N is None:
                coded_N[start:stop] = block
            self._weight_K = self._weight_K + counts(block, len(self._weight_K))
            self._coded += stop - start
            start = stop
        return coded_N


def counts(symbols_N: NDArray[Any], kinds: int) -> NDArray[np.int64]:
    """Return how often each symbol in [0, kinds) occurs; NumPy takes 8 bytes for each that it counts at once."""
    counts_K = np.zeros(kinds, np.int64)
    for start in range(0, len(symbols_N), COUNTED):
        counts_K += np.bincount(symbols_N[start : start + COUNTED], minlength=kinds)
    return counts_K


def flat(count: int) -> Floats:
    """Return the uniform prior of ``count`` symbols."""
    return np.full(count, FLAT_WEIGHT / count)


def peaked(low: int, high: int, mean: float) -> Floats:
    """Return a prior over the integers low..high that decays geometrically on both sides of zero.

    Args:
        low: smallest integer.
        high: largest integer.
        mean: expected mean magnitude, positive.
    """
    ratio = mean / (1.0 + mean)
    falling = np.cumprod(np.full(max(abs(low), abs(high)) + 1, ratio))
    shape = falling[np.abs(np.arange(low, high + 1))] + 1e-3 * falling[0] / (high - low + 1)
    # More symbols take longer to learn, so the shape gets more weight.
    weight: Floats = shape * ((12.0 + 0.5 * len(shape)) / shape.sum())
    return weight


def code_places(
    stream: Stream,
    density_R: Floats,
    columns: int,
    passes: Sequence[Pass],
    *,
    column_prior: float,
    roots: int,
    places_RC: NDArray[np.bool_] | None,
) -> NDArray[np.bool_]:
    """Code the places of non-zeros in a matrix.

    The odds of a place are the overall odds times independent factors of its row (known) and column (learnt from the
    rows before), times a learnt factor for the number of adjacent non-zeros. Rows of density 0 are skipped.

    Args:
        stream: a Writer, a Meter or a Reader.
        density_R: expected fraction of non-zeros in each row, [0, 1].
        columns: C.
        passes: the order of the columns in each block of rows.
        column_prior: weight of the average density in that of a column, in rows.
        roots: power of the factors of row and column where neighbours are known: 0: 1, 1: 0.75, 2: 0.5.
        places_RC: the places when writing, None when reading.
    """
    coded_RC = np.zeros((len(density_R), columns), np.bool_)
    live = np.flatnonzero(density_R > 0)
    if not len(live) or not columns:
        return coded_RC
    stream.expect(len(live) * columns)
    density_L = np.clip(density_R[live], 2.0**-12, 1 - 2.0**-12)
    overall = float(density_L.sum() / len(live))
    prior = overall / (1 - overall)
    row_odds_L = density_L / (1 - density_L)
    ones_C = np.zeros(columns)
    effects = [_NeighbourEffect() for _ in passes]
    start = 0
    while start < len(live):
        stop = min(len(live), start + max(1, start // ROW_GROWTH))
        rows = live[start:stop]
        share_C = (ones_C + column_prior * overall) / (start + column_prior)
        effect_BC = row_odds_L[start:stop, None] * (share_C / ((1 - share_C) * (prior * prior)))
        block_BC = np.zeros((len(rows), columns + 1), np.int8)  # the last column is zero, for missing neighbours
        for part, effect in zip(passes, effects, strict=True):
            known_BP = None if places_RC is None else places_RC[rows][:, part.columns]
            odds_BP = prior * _power(effect_BC[:, part.columns], roots if part.neighbours is not None else 0)
            block_BC[:, part.columns] = effect.code(stream, odds_BP, part, block_BC, known_BP)
        coded_RC[rows] = block_BC[:, :columns]
        ones_C += block_BC[:, :columns].sum(0)
        start = stop
    return coded_RC


def _power(effect_BP: Floats, roots: int) -> Floats:
    """Return ``effect_BP`` to the power 1, 0.75 or 0.5; square roots are rounded alike on all machines."""
    if not roots:
        return effect_BP
    root_BP: Floats = np.sqrt(effect_BP)
    return root_BP * np.sqrt(root_BP) if roots == 1 else root_BP


class _NeighbourEffect:
    """The factor of a place's odds for its number of adjacent non-zeros, learnt while coding."""

    def __init__(self) -> None:
        # By number of adjacent non-zeros: counts of non-zeros, actual and expected without neighbours.
        self._actual_K = np.zeros(DIRECTIONS + 1)
        self._expected_K = np.zeros(DIRECTIONS + 1)

    def code(
        self,
        stream: Stream,
        odds_BP: Floats,
        part: Pass,
        block_BC: NDArray[np.int8],
        known_BP: NDArray[np.bool_] | None,
    ) -> Integers:
        """Code the places of one pass in a block of rows; ``block_BC`` has those of earlier passes."""
        known = None if known_BP is None else known_BP.astype(np.int32).ravel()
        if part.neighbours is None:
            return stream.bits((odds_BP / (1 + odds_BP)).ravel(), known).reshape(odds_BP.shape)
        count_N = part.sums(block_BC).ravel()
        effect_K = (self._actual_K + NEIGHBOUR_PRIOR) / (self._expected_K + NEIGHBOUR_PRIOR)
        odds_N = odds_BP.ravel()
        likely_N = odds_N * effect_K[count_N]
        bits_N = stream.bits(likely_N / (1 + likely_N), known)
        self._actual_K += np.bincount(count_N, bits_N, DIRECTIONS + 1)
        self._expected_K += np.bincount(count_N, odds_N / (1 + odds_N), DIRECTIONS + 1)
        return bits_N.reshape(odds_BP.shape)
