"""Packets summed piece by piece: no piece straddles a collection interval, none of it is lost."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvfd.telemetry.fold import PIECE, Before, fold, folds
from dvfd.telemetry.wire import Row


def row(step: int, boot: float | None = None, **more: float) -> Row:
    return Row(step, step, float(step) if boot is None else boot, **more)


def test_a_packet_within_an_interval_is_one_piece() -> None:
    [piece] = folds("gpt", 2, [row(n, samples=8.0) for n in range(1, 51)], 1e9)
    assert (piece.rank, piece.first_step, piece.last_step, piece.samples_sum) == (2, 1, 50, 400.0)
    assert (piece.began, piece.ended, piece.at) == (1.0, 50.0, 1e9)


@given(st.integers(1, 500), st.integers(1, 200))
def test_pieces_end_where_intervals_do_and_add_up(first: int, count: int) -> None:
    pieces = list(folds("gpt", 0, [row(n) for n in range(first, first + count)], 1e9))
    assert sum(p.count for p in pieces) == count
    assert all((p.first_step - 1) // PIECE == (p.last_step - 1) // PIECE for p in pieces)
    assert pieces[-1].at == 1e9
    assert pieces[0].at == pytest.approx(1e9 - pieces[-1].ended + pieces[0].ended)


def test_a_step_counts_from_the_end_of_the_one_before() -> None:
    rows = [row(n, communication=0.1) for n in range(49, 53)]
    pieces = list(folds("gpt", 0, rows, 1e9, Before(stepped=47.5)))
    assert [(p.stepping_sum, p.exposed_sum) for p in pieces] == [(2.5, 0.2), (2.0, 0.2)]


def test_an_interval_whose_beginning_is_not_known_is_no_step() -> None:
    assert fold("gpt", 0, [row(1, communication=0.1)], 1e9).exposed_sum == 0.0


def test_only_steps_that_told_their_communication_count() -> None:
    rows = [row(1), row(2, communication=0.5), row(3), row(4, communication=0.5)]
    assert fold("gpt", 0, rows, 1e9, Before(0.0)).stepping_sum == 2.0


def test_what_is_not_finite_is_counted_and_not_summed() -> None:
    rows = [row(1, loss=2.0, grad_norm=1.0), row(2, loss=math.nan, grad_norm=math.inf)]
    found = fold("gpt", 0, rows, 1e9)
    assert (found.loss_sum, found.norm_sum, found.nonfinite) == (2.0, 1.0, 2)
    assert (found.loss_count, found.norm_count) == (1, 1)


def test_a_piece_ends_where_the_file_of_a_run_does() -> None:
    pieces = list(folds("gpt", 0, [row(n) for n in range(1, 21)], 1e9, cut=15))
    assert [(p.first_step, p.last_step, p.sequence) for p in pieces] == [(1, 15, 15), (16, 20, 20)]


def test_a_piece_ends_with_what_had_counted_before() -> None:
    pieces = folds("gpt", 0, [row(n) for n in range(1, 11)], 1e9, Before(seen=6))
    assert [(p.sequence, p.count) for p in pieces] == [(6, 6), (10, 4)]


def test_losses_whose_sum_is_no_float_are_heard() -> None:
    rows = [row(n, loss=1.7e308) for n in range(1, 5)]
    assert fold("gpt", 0, rows, 1e9).loss_sum == math.inf
