"""The rules of early stopping, by the names that Experiments use.

A rule's ``summary`` is what it takes from the curve of a whole trial; ``bound`` makes of all of them the value that the
first ``start_step`` reports of a new trial must reach, which is what Katib's protocol hands to a metrics collector.
"""

from collections.abc import Mapping

from kondense.config import check_choice
from kondense.search import curve_stop, median_stop
from kondense.search.curve_stop import CurveStop
from kondense.search.median_stop import MedianStop

Rule = MedianStop | CurveStop

RULES: Mapping[str, type[Rule]] = {median_stop.NAME: MedianStop, curve_stop.NAME: CurveStop}
# Those that compare promoted trials with each other, and so run beside hyperband and bohb.
PROMOTED = (curve_stop.NAME,)


def read_rule(name: str, settings: Mapping[str, str]) -> Rule:
    """Return a rule.

    Args:
        name: `earlyStopping.algorithmName`.
        settings: of the rule.

    Raises:
        ValueError: there is no such rule, or a setting is unknown or breaks its rule.
    """
    check_choice("earlyStopping.algorithmName", name, tuple(RULES))
    return RULES[name].read(settings)
