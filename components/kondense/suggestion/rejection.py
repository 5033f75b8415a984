"""The end of a call that breaks a rule."""

import logging
from typing import NoReturn

import grpc

LONGEST = 2_000  # characters of a text, which may hold a value of the caller's; gRPC's headers have room for 8 KiB
LOG = logging.getLogger("suggestion")


def reject(
    context: grpc.ServicerContext,
    call: str,
    subject: str,
    rule: Exception | str,
    code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT,
) -> NoReturn:
    """End the call with ``code`` and a text that gives the rule and the value.

    Args:
        context: of the call.
        call: its name in the log.
        subject: the experiment's name, or the trial's.
        rule: the text.
        code: Katib fails an Experiment on INVALID_ARGUMENT, and asks again on the others.
    """
    text = str(rule)
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}..."
    LOG.warning("rejected", extra={"experiment": subject[:LONGEST], "call": call, "rule": text})
    context.abort(code, text)
    raise AssertionError("abort raises")
