"""What a stage took, as its log tells it and the runner reads it."""

import pytest
from kondense.errors import InputError, ShortfallError
from kondense.logging import to_stdout
from kondense.usage import read_usage, resident_bytes, resident_peak_bytes, shared_bytes, usage_told, workers_took


@pytest.mark.parametrize("error", [None, ShortfallError, InputError])
def test_what_is_written_is_told_with_its_memory_and_that_of_its_workers(
    error: type[Exception] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    def stage() -> None:
        with usage_told():
            workers_took(10**9)
            workers_took(5 * 10**8)  # of a smaller group
            if error is not None:
                raise error("as asked for")

    with to_stdout():
        if error is None:
            stage()
        else:
            with pytest.raises(error):
                stage()
    told = [usage for line in capsys.readouterr().out.splitlines() if (usage := read_usage(line))]
    if error is InputError:  # nothing is written
        assert not told
        return
    ((seconds, memory_bytes),) = told
    assert seconds < 60.0
    assert abs(memory_bytes - resident_peak_bytes() - 10**9) < 10**7


def test_what_processes_share_is_part_of_what_is_resident() -> None:
    assert 0 < shared_bytes() < resident_bytes() <= resident_peak_bytes()
