"""All parsers of Kondense that take what others have written."""

from benchmarks.hardness.parsers import datasets, models, reports, runs, searches, services, stores, texts

PARSERS = (
    *texts.PARSERS,
    *models.PARSERS,
    *datasets.PARSERS,
    *reports.PARSERS,
    *stores.PARSERS,
    *searches.PARSERS,
    *services.PARSERS,
    *runs.PARSERS,
)
