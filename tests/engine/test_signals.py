"""SIGTERM and SIGUSR1 become a request while work is saved in parts, an exception while it is not, and what they were after."""

import os
import signal

import pytest

from common.errors import Interrupted
from engine.signals import STOPPING, heed, stop_requests, stopped_at_once


def handlers():
    return [signal.getsignal(number) for number in STOPPING]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_noted(number):
    with stop_requests() as stop:
        assert not stop
        assert stop.name is None
        os.kill(os.getpid(), number)
        assert stop
        assert stop.name == number.name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_block(number):
    with pytest.raises(Interrupted, match=f"Stopped by {number.name}"), stopped_at_once():
        os.kill(os.getpid(), number)
        raise AssertionError("not reached")


def test_the_handlers_are_what_they_were_whatever_happens():
    before = handlers()
    for context in (stop_requests, stopped_at_once):
        with pytest.raises(ZeroDivisionError), context():
            assert handlers() != before
            raise ZeroDivisionError
        assert handlers() == before


def test_a_request_within_a_block_that_ends_at_once():
    with pytest.raises(Interrupted), stopped_at_once():
        with stop_requests() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.name == "SIGTERM"
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_request_that_came_too_late_is_kept_for_who_has_more_to_do():
    with stopped_at_once():
        heed()  # nothing yet
        with stop_requests():
            os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Interrupted, match="Stopped by SIGUSR1"):
            heed()
        heed()  # once
        with stop_requests():
            os.kill(os.getpid(), signal.SIGTERM)
    with stopped_at_once():
        heed()  # of earlier work


def test_ctrl_c_is_left_alone():
    before = signal.getsignal(signal.SIGINT)
    with stop_requests(), stopped_at_once():
        assert signal.getsignal(signal.SIGINT) is before
