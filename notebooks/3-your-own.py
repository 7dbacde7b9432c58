# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3 · Your own model, your own prompts, your own metric
#
# Any causal transformer of the transformers library will do. Here is one that nobody has seen: it is
# trained in this notebook, in a few seconds, to do what it is told. *second Cleo Eve Hana Finn :* …
# Eve. Which of its parts carry out the order? Nothing is fetched; less than a minute.

# %%
import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import mechspex as mx

# %% [markdown]
# ## The model
#
# A tokenizer of fourteen words, and a GPT-2 of two layers. (Yours comes from
# `AutoModelForCausalLM.from_pretrained`.)

# %%
words = ["<unk>", ":", "first", "second", "third", "fourth"]
words += "Ann Bob Cleo Dan Eve Finn Gus Hana".split()
known = {word: number for number, word in enumerate(words)}
splitter = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
splitter.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=splitter, unk_token="<unk>")

torch.manual_seed(0)
config = GPT2Config(
    vocab_size=len(words), n_positions=8, n_embd=64, n_layer=2, n_head=4,
    resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=None, eos_token_id=None,
)  # fmt: skip
network = GPT2LMHeadModel(config)


def draw(n, rng):
    """Orders, four names each, a colon; and the names that are asked for."""
    names = 6 + rng.random((n, 8)).argsort(axis=1)[:, :4]
    asked = rng.integers(0, 4, n)
    rows = np.column_stack([2 + asked, names, np.ones(n, dtype=int)])
    return torch.tensor(rows), torch.tensor(names[np.arange(n), asked])


rng, optimizer = np.random.default_rng(0), torch.optim.AdamW(network.parameters(), lr=2e-3)
for _ in range(300):
    rows, answers = draw(128, rng)
    loss = torch.nn.functional.cross_entropy(network(rows).logits[:, -1], answers)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"loss after 300 steps: {loss.item():.3f}")

# %% [markdown]
# `load_model` takes the model as it is in memory, with its tokenizer. It stays yours: weights are
# shared, and nothing is changed in it.

# %%
model = mx.load_model(network.eval(), tokenizer=tokenizer)

# %% [markdown]
# ## The prompts and the metric
#
# Prompts and answers are lists of strings. (`mx.read_prompts` reads CSV, JSON and data frames.) An
# answer begins with the space that parts it from its prompt.
#
# Some metrics have names, such as `logit_difference`. Your own is a function of the logits
# `[row, vocabulary]` of the last position, and of the number of each row's prompt in its task. This
# one asks how far the right name is ahead of the best of all other words. Above zero it is said.


# %%
def orders(n, seed):
    """A task of `n` prompts."""
    rows, answers = draw(n, np.random.default_rng(seed))

    def lead(logits, prompt):
        right = answers[prompt][:, None]
        others = logits.scatter(1, right, -torch.inf)
        return logits.gather(1, right)[:, 0] - others.max(dim=1).values

    prompts = [" ".join(words[token] for token in row) for row in rows]
    return mx.Task(prompts, [" " + words[a] for a in answers], metric=lead, name="orders")


task, fresh = orders(32, seed=1), orders(64, seed=2)
for prompt, name in zip(task.prompts[:3], task.answers):
    print(prompt, "→", name)

# %% [markdown]
# ## Which parts carry out the order?
#
# Eight heads and two MLPs: all 1,024 masks are measured, so nothing is estimated. Effects are
# measured on 64 prompts that the search has not seen.

# %%
values = mx.ComponentValues(model, task, "heads+mlps", ablation="mean")
explanation = mx.explain(values, held_out=values.on(fresh), n_masks=1024)
print(explanation.in_short)
explanation.top(6)[["units", "order", "effect", "low", "high"]].round(2)

# %% [markdown]
# Each part alone costs much, and pairs are positive: where two parts need each other, the second loss
# costs little more. Sums of single parts do not explain the 1,024 values (*additive R²*).

# %%
explanation.plot()

# %% [markdown]
# ## Does it make sense?
#
# The order stands at the beginning, the name is said at the end. So something has to bring the order
# to the colon, and something has to look at the name in that place. Where do the heads of layer 1
# look? `to_answer` is the attention that the colon gives to the right name, mean over prompts.

# %%
heads = mx.heads(model, layers=[1])
looks = mx.head_roles(model, fresh, heads)
looks[["unit", "to_previous", "to_answer", "role"]].round(2)

# %% [markdown]
# And on one prompt:

# %%
mx.attention_patterns(model, fresh.prompts[0], heads).plot()

# %% [markdown]
# The last row is the colon. Heads that carry out the order give most of their attention there to the
# name that is asked for; that they can is the work of layer 0. Trained from another seed, the work
# may fall to other heads, and `explain` finds which.
#
# With your own model, change three things: the model, the prompts, the metric. A prompt file with the
# columns `prompt`, `answer` and `distractor` does it without a line of Python:
# `mechspex explain --prompts-from file.csv --model FOLDER`.
