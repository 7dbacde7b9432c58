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
# # 6 · A circuit, its roles, and what vouches for it
#
# A circuit is the few units that carry a behaviour by themselves. It is easily claimed. This
# notebook finds one in a small model, names what its heads do, and then asks each question that a
# reviewer would ask. The model ships with mechspex; about a minute on two cores.

# %%
import itertools

import numpy as np
import pandas as pd

import mechspex as mx

model = mx.load_model("tiny")  # two layers of four heads
task, held_out = mx.load_task("induction", model, n_prompts=40).split(8, 32)
print(task.prompts[0], "→", task.answers[0], " (not", task.distractors[0] + ")")

# %% [markdown]
# A word comes a second time; what followed it the first time should follow again. Eight prompts are
# searched. The other 32 are kept for the scores.

# %%
values = mx.ComponentValues(model, task, "heads", ablation="mean")
fresh = values.on(held_out)
found = mx.find_circuit(values, fresh, n_masks=150)
circuit = found.circuit
circuit.to_pandas()[["unit", "effect", "adds", "role"]].round(2)

# %% [markdown]
# Two heads. *effect* is what ablating the head costs the whole model, *adds* what it adds to the
# circuit. The roles are proposed from where the heads look. Here is where, on one prompt:

# %%
roles = circuit.to_pandas().set_index("unit")["role"].to_dict()
mx.attention_patterns(model, task.prompts[0], list(circuit.names)).plot(roles=roles)

# %% [markdown]
# The first looks from each word to the one before; the second from the last word to what followed
# that word before, which is the answer. That is the induction circuit (Olsson et al. 2022). They act
# *together*: ablating both costs hardly more than ablating one, since each needs the other.

# %%
circuit.plot()

# %% [markdown]
# ## Question 1: does it do what the model does?
#
# Faithfulness: (value of the circuit − all ablated) ÷ (whole model − all ablated). One says that it
# does as much as the whole model, zero that it does nothing. Completeness is the same of all *other*
# heads: how much of the behaviour lies outside. Random circuits of the same size are the control.
# Two one-sided tests say how far the circuit is from the model at most, as a share of the behaviour.

# %%
score = mx.faithfulness(fresh, circuit.names)
print(score)

# %% [markdown]
# ## Question 2: would a smaller one do, or another?
#
# A search may miss it. Eight heads have only 256 subsets, so here the answer can be proved: each
# single head and each pair, on the fresh prompts.

# %%
units = values.units.names
whole, empty = fresh(np.array([[True] * 8, [False] * 8])).mean(axis=1)
small = [set(subset) for size in (1, 2) for subset in itertools.combinations(units, size)]
done = fresh(np.array([[unit in subset for unit in units] for subset in small])).mean(axis=1)
proof = pd.DataFrame({"kept alone": [" + ".join(sorted(subset)) for subset in small]})
proof["faithfulness"] = (done - empty) / (whole - empty)
proof.nlargest(4, "faithfulness").round(2)

# %% [markdown]
# The circuit is first, and what comes next is far behind: no single head and no other pair does it.
# In a large model this cannot be tried out. There `mx.best_subset` proves the best subset of the
# *recovered* function by integer programming, and the curve over sizes shows the rest:

# %%
found.plot()

# %% [markdown]
# ## Question 3: does it hang on how one ablates?
#
# The same two heads, the others replaced in three ways: by their mean, by zeros, and by what they do
# on a corrupted prompt. A row is a reference; *kl divergence* is that of the circuit's next word from
# the whole model's.

# %%
print(mx.reference_scores(model, held_out, circuit, ["mean", "zero", "corrupted"]))

# %% [markdown]
# ## Question 4: is it needed?
#
# What carries a behaviour alone need not be what the model uses. So ablate the circuit, and look at
# what the model says then.

# %%
for gone in [(), *circuit.names, circuit.names]:
    said = fresh.next_tokens(gone, n_tokens=1)["token"]
    right = sum(token == answer for token, answer in zip(said, held_out.answers))
    named = gone if isinstance(gone, str) else " and ".join(gone)
    print(f"without {named or 'nothing':14} right on {right} of {len(held_out)}")

# %% [markdown]
# ## Question 5: does it hold elsewhere?
#
# Prompts of another seed, with other words in other places:

# %%
elsewhere = fresh.on(mx.load_task("induction", model, n_prompts=32, seed=7))
print(mx.faithfulness(elsewhere, circuit.names).faithfulness)

# %% [markdown]
# Five tests, each of which could have failed. None says that the *story* of the roles is right: it
# is a reading of attention patterns, and a pattern only proposes it. On SmolLM2 the same lines work
# with `mx.load_model("smollm2-135m")` and a task such as `capital`; the search then takes minutes,
# and `mx.compare_circuits` holds what is found against a circuit from the literature.
