"""The order of a trial's stages as one string: ``train > prune > quantize``. Stdlib only."""

STEPS = ("prune", "distill", "quantize")


def parse_recipe(text: str) -> tuple[str, ...]:
    """Return the stages that follow ``train``, in order.

    Raises:
        ValueError: the recipe does not begin with train, names another stage, repeats one, or goes on after
            quantize, whose integers training would change.
    """
    first, *steps = [part.strip() for part in text.split(">")]
    if first != "train":
        raise ValueError(f"recipe must begin with train, but got {text!r}.")
    for step in steps:
        if step not in STEPS:
            raise ValueError(f"recipe must name {', '.join(STEPS)} after train, but got {step!r} in {text!r}.")
    if len(set(steps)) < len(steps):
        raise ValueError(f"recipe must name each stage once, but got {text!r}.")
    if "quantize" in steps[:-1]:
        raise ValueError(f"recipe must end with quantize when it has it, but got {text!r}.")
    return tuple(steps)
