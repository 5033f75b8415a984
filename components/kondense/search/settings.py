"""Reading algorithm settings, which Katib sends as strings."""

from collections.abc import Collection, Mapping

from kondense.errors import InputError, meant
from kondense.search import goals
from kondense.search.ledger import SETTING, Ledger

ALWAYS = ("random_state", SETTING)  # settings of every suggester


def check(
    settings: Mapping[str, str],
    allowed: Collection[str],
    max_trial_count: int | None,
    parallel_trial_count: int | None,
) -> None:
    """Check the names of the settings, `random_state`, the ledger, and the counts that are set.

    Raises:
        ValueError: a setting is unknown (the known ones are listed) or cannot be read, or a count is below 1.
    """
    for name in settings:
        if name in goals.SETTINGS and name not in allowed:
            raise InputError(f"setting {name} must be absent: this algorithm has one objective and no constraint.")
        if name not in allowed and name not in ALWAYS:
            known = ", ".join(sorted({*allowed, "random_state"}))
            raise InputError(f"unknown setting {name!r}{meant(name, allowed)}; the settings are {known}.")
    read_integer(settings, "random_state", 0, minimum=0)
    Ledger(settings.get(SETTING, ""))
    goals.read_goals(settings, "", "minimize")
    for name, count in (("maxTrialCount", max_trial_count), ("parallelTrialCount", parallel_trial_count)):
        if count is not None and count < 1:
            raise InputError(f"{name} must be at least 1, but got {count}.")


def check_names(settings: Mapping[str, str], allowed: Collection[str], rule: str) -> None:
    """Check the names of the settings of a rule of early stopping.

    Raises:
        ValueError: one is unknown; the known ones are listed.
    """
    for name in settings:
        if name not in allowed:
            known = ", ".join(allowed)
            raise InputError(f"unknown setting {name!r} of {rule}{meant(name, allowed)}; the settings are {known}.")


def read_integer(settings: Mapping[str, str], name: str, default: int, minimum: int) -> int:
    """Return an integer.

    Raises:
        ValueError: it is not a whole number of at least `minimum`.
    """
    text = settings.get(name, str(default))
    try:
        value = float(text)
        whole = int(value)
    except (ValueError, OverflowError):
        raise InputError(f"setting {name} must be a whole number, but got {text!r}.") from None
    if value != whole or whole < minimum:
        raise InputError(f"setting {name} must be a whole number of at least {minimum}, but got {text!r}.")
    return whole


def read_number(settings: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    """Return a number.

    Raises:
        ValueError: it is not a number in [low, high].
    """
    text = settings.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"setting {name} must be a number, but got {text!r}.") from None
    if not low <= value <= high:  # also rejects NaN
        raise InputError(f"setting {name} must be in [{low:g}, {high:g}], but got {text!r}.")
    return value


def read_choice(settings: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    """Return one of `choices`, the first by default.

    Raises:
        ValueError: the value is none of them.
    """
    text = settings.get(name, choices[0])
    if text not in choices:
        known = ", ".join(choices)
        raise InputError(f"setting {name} must be one of {known}, but got {text!r}{meant(text, choices)}.")
    return text
