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
# # 5 · Neurons: a billion pairs
#
# SmolLM2-135M has 46,080 MLP neurons, and they have a billion pairs. Measuring each would take
# years. Gradients score all of them in a minute or two; the few best are then measured exactly. The
# model is fetched once (93 MB); about two minutes on two idle cores.

# %%
import numpy as np

import mechspex as mx

model = mx.load_model("smollm2-135m")
neurons = mx.neurons(model)
print(f"{len(neurons):,} neurons, {len(neurons) * (len(neurons) - 1) // 2:,} pairs")

# %% [markdown]
# ## Screen
#
# *When Mary and John went to the store, John gave a drink to* … Mary. Four prompts are screened, and
# twelve others are kept for the test.
#
# The screen takes gradients of the logit difference in the mask. ablated(i, j) ≈ gⱼ(all) − gⱼ(all but
# i): one gradient scores all pairs of neuron i. Random probes choose the hundred neurons that get
# such a gradient; pairs of two others are estimated from the probes. More rows and probes, and more
# prompts, make it better and slower: the defaults are 500 and 64.

# %%
task, held_out = mx.load_task("ioi", model, n_prompts=16).split(4, 12)
values = mx.ComponentValues(model, task, neurons, ablation="mean")
method = mx.SecondOrder(rows=100, probes=16)
found = mx.screen(values, method, n_terms=20, run="notebook-neurons", progress=True)
print("scored: {:,} single neurons and {:,} pairs".format(*found.considered))
found.to_pandas().head(5).round(3)

# %% [markdown]
# ## Confirm
#
# A score only proposes. `validate` ablates each pair, and each of its neurons alone, in the whole
# model, on the twelve fresh prompts. *confirmed*: the interval over prompts leaves out zero, at a
# false discovery rate of 5% among the twenty.

# %%
tested = mx.validate(values.on(held_out), found.terms)
table = tested.to_pandas().assign(predicted=found.scores)
table = table[["units", "predicted", "effect", "low", "high", "confirmed"]]
table.sort_values("effect", key=abs, ascending=False).head(10).round(3)

# %% [markdown]
# How well did the gradients foretell the exact effects, and how many held?

# %%
r = np.corrcoef(found.scores, tested.effects)[0, 1]
same = (np.sign(found.scores) == np.sign(tested.effects)).mean()
print(f"predicted and exact: correlation {r:.2f}, same sign {same:.0%}")
print(f"confirmed: {tested.confirmed.sum()} of {len(tested.terms)}")

# %% [markdown]
# Prompt by prompt, a dot each. Many neurons speak on a few prompts alone, and where one or two dots
# make the mean, it is not confirmed.

# %%
tested.plot()

# %% [markdown]
# The gradients foretell size and sign well, and are no proof: most proposals do not hold on fresh
# prompts, or twelve are too few to tell. A few neurons come back in many of the pairs; look at these
# first. `mx.missed` estimates what a screen overlooked, and `mx.explain(values,
# screen="second_order")` does all of this and decodes random masks of the best neurons as well; with
# 46,080 neurons that takes ten minutes.
