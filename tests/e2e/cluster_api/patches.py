"""Patches as an API server applies them: JSON merge patches, and strategic ones as far as kubectl sends them.

Of strategic merge patches only lists with ``$setElementOrder`` are merged by key, the key being that of the order's
entries; other lists are replaced. A real server knows the keys from its types.
"""

import copy
from typing import Any

ORDER, DELETE = "$setElementOrder/", "$patch"


def apply_patch(target: Any, patch: Any) -> Any:
    """Return what ``patch`` makes of ``target``."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    made = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            made.pop(key, None)
        elif isinstance(value, list) and f"{ORDER}{key}" in patch:
            made[key] = _merge_list(made.get(key) or [], value, patch[f"{ORDER}{key}"])
        else:
            made[key] = apply_patch(made.get(key), value)
    return made


def _merge_list(target: list[Any], patch: list[Any], order: list[Any]) -> list[Any]:
    if not order or not isinstance(order[0], dict):
        return [each for each in order if each in target or each in patch]
    (key,) = order[0]
    items = {each[key]: each for each in target}
    for each in patch:
        if each.get(DELETE) == "delete":
            items.pop(each[key], None)
        else:
            items[each[key]] = apply_patch(items.get(each[key]), each)
    wanted = [each[key] for each in order]
    return [items[name] for name in [*wanted, *(name for name in items if name not in wanted)] if name in items]
