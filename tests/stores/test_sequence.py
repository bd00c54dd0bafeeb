from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from windrow.clock import parse_time
from windrow.stores.sequence import Sequence, at, moment, next_seq

NOON = parse_time("2026-06-01T12:00:00Z")


def test_numbers_grow_while_the_clock_stands_still() -> None:
    numbers = Sequence()
    given = [numbers.next(now=NOON) for _ in range(1000)]
    assert given == sorted(set(given))


def test_numbers_grow_when_the_clock_steps_back() -> None:
    numbers = Sequence()
    assert numbers.next(now=NOON) < numbers.next(now=NOON - 3_600_000_000)


def test_threads_never_share_a_number() -> None:
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda _: next_seq(), range(2000)))
    assert len(set(given)) == 2000


def test_two_writers_in_the_same_microsecond_have_different_numbers() -> None:
    assert Sequence(writer=1).next(now=NOON) != Sequence(writer=2).next(now=NOON)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_draws_another_writer() -> None:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, str(next_seq()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    told = int(os.read(read, 32))
    os.close(read), os.close(write)
    assert told % 4096 != next_seq() % 4096


def test_a_number_tells_when_it_was_given() -> None:
    assert moment(Sequence().next(now=NOON)) == 1780315200000000


def test_a_time_stands_for_every_number_given_up_to_it() -> None:
    given = [Sequence(writer=4095).next(now=NOON), Sequence(writer=0).next(now=NOON + 1)]
    assert [number <= at(NOON) for number in given] == [True, False]


def test_numbers_of_the_year_2090_fit_into_64_bits() -> None:
    assert Sequence(writer=4095).next(now=parse_time("2090-12-31")) < 2**63
