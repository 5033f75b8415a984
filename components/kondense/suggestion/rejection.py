"""The end of a call that breaks a rule."""

import logging
from typing import NoReturn

import grpc

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
    LOG.warning("rejected", extra={"experiment": subject, "call": call, "rule": str(rule)})
    context.abort(code, str(rule))
    raise AssertionError("abort raises")
