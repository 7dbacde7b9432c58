"""Thousands of units: memory does not grow with the number of masks."""

import json
import subprocess
import sys
from pathlib import Path

# Forked after everything is loaded: each count is measured in a process of its own, whose peak no
# other measurement has touched.
MEASURE = """
import json, os, resource, sys
from pathlib import Path
import numpy as np
from small_models import save_random
from transformers import LlamaConfig, LlamaForCausalLM
import mechspex as mx
from mechspex.core.masks import sample_masks
from mechspex.prompts import scored_model

N_WORDS = 2000
config = LlamaConfig(
    vocab_size=8192, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=N_WORDS + 100,
    bos_token_id=1, eos_token_id=1,
)
folder = save_random(LlamaForCausalLM, config, Path(sys.argv[1]))
words = ["apple", "bird", "boat", "moon", "lake", "key", "wood", "wall", "door", "snow"]
text = " ".join(np.random.default_rng(0).choice(words, N_WORDS))
values = mx.PromptValues(
    mx.load_model(folder), text, " flag tree", by="word", response=" bird boat"
)
assert values.through_bridge is None
# As large as it is: how fast this machine is today is no matter here.
values._scored.forward._size._settled = True
reads, logits = scored_model.log_probabilities, []


def keeping(tokens):
    def read_and_keep(found):
        # Four times: what a forward takes for a while hides some of it.
        logits.extend(found.clone() for _ in range(4))
        return reads(tokens)(found)

    return read_and_keep


def peak(n_masks, keeps_logits):
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        os.wait()
        return int(os.read(reader, 64))
    if keeps_logits:
        scored_model.log_probabilities = keeping
    values(sample_masks(N_WORDS, n_masks, keep=0.1, seed=n_masks))
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    os.write(writer, str(kilobytes).encode())
    os._exit(0)


tried = ((64, False), (512, False), (512, True))
print(json.dumps([peak(*one) / 1024 for one in tried]))
"""


def test_eight_times_as_many_masks_take_no_more_memory(tmp_path):
    tests = str(Path(__file__).parent.parent)
    code = f"import sys; sys.path.insert(0, {tests!r})\n{MEASURE}"
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    few, many, kept = json.loads(done.stdout)
    # A row is 2,000 words of text and 200 tokens; its logits alone would be 64 kilobytes.
    assert many - few < 12, "megabytes"
    assert kept - few > 25, "and somebody who keeps the logits is seen"
