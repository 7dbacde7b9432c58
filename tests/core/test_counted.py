from mechspex.core.counted import counted
from mechspex.core.provenance import Provenance


def test_one_is_no_plural():
    assert [counted(n, "mask") for n in (0, 1, 2, 1_000)] == [
        "0 masks", "1 mask", "2 masks", "1,000 masks",
    ]  # fmt: skip


def test_a_task_of_one_prompt_reads_so_and_is_kept_as_ever():
    kept = {"task": "ioi, 1 prompts 3272ee1dfb58505d"}
    told = Provenance.of(kept)
    assert told.in_words() == ["ioi, 1 prompt"]
    assert told.to_configuration() == kept
