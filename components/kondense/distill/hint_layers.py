"""The text of ``hint_layers``: ``teacher:student,...``. Stdlib only, for the Config."""

from kondense.errors import InputError


def parse_hint_layers(text: str) -> tuple[tuple[str, str], ...]:
    """Return the pairs of module names, the teacher's first; none for an empty text.

    Raises:
        ValueError: the text has another form, or pairs a layer of the student twice.
    """
    pairs: list[tuple[str, str]] = []
    for part in text.split(",") if text.strip() else []:
        teacher, colon, student = (each.strip() for each in part.partition(":"))
        if not (colon and teacher and student) or ":" in student:
            raise InputError(f"hint_layers must be teacher:student,..., but got {part.strip()!r} in {text!r}.")
        if student in (paired for _, paired in pairs):
            raise InputError(f"hint_layers must pair every layer of the student once, but got {student!r} twice.")
        pairs.append((teacher, student))
    return tuple(pairs)
