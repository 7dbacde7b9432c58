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
# # 2 · Masks, values, and a known function decoded
#
# How do interactions come out of ablations, and when may one believe them? Here no model is needed:
# the function is known, so every answer can be checked. Seconds on two cores.

# %%
import numpy as np

import mechspex as mx

# %% [markdown]
# ## A mask and its value
#
# A *mask* says of each unit whether it is kept. A *value function* says what the whole does then.
# Here is a research group of twelve people. A paper needs both a theorist and a programmer; either
# of two editors will do; one person holds everybody up.

# %%
people = "Ada Ben Cleo Dan Eve Finn Gus Hana Ivo Jo Kim Lea".split()
group = mx.parts(people)


def papers(present):
    """Papers a year, for each row of `present`."""
    ada, ben, cleo, dan, eve = present[:, :5].T
    return 3.0 * (ada & ben) + 1.0 * (cleo | dan) - 0.5 * eve


masks = mx.sample_masks(len(group), 200, keep=0.5, seed=0)
values = papers(masks)
for mask, value in zip(masks[:3], values):
    print([name for name, present in zip(people, mask) if present], "→", value)

# %% [markdown]
# ## Decoding
#
# There are 4,096 masks, and 200 of them were looked at. `decode` finds the few sets of people that
# explain the 200 values.

# %%
function = mx.decode(masks, values)
function.to_basis("kept").truncate(5).to_pandas(people).round(2)

# %% [markdown]
# The numbers are the planted ones. In the basis `kept` a term counts when all its members are
# there: an *and* is one term, Ada × Ben. The two editors are three terms there: each adds one, and
# both together one less than twice that.
#
# In the basis `ablated` a term counts when all its members are gone. There the editors are one
# term, Cleo × Dan, and Ada and Ben are three. The function is the same; choose the basis in which
# your question is short. mechspex reports effects of ablation.

# %%
function.to_basis("ablated").truncate(5).to_pandas(people).round(2)

# %% [markdown]
# ## The same in one call
#
# `explain` draws masks, measures, decodes, scores the answer on fresh masks, and measures each term
# that it reports exactly. *additive R²* is what the best sum of single people explains: much, and
# not all.

# %%
explanation = mx.explain(papers, units=group, n_masks=200, design=mx.RandomMasks(keep=0.5))
print(f"R² {explanation.r2:.2f}, additive R² {explanation.additive_r2:.2f}")
explanation.plot()

# %% [markdown]
# ## How many masks?
#
# Real values are noisy, and real units many. Forty units, three pairs and one triple, and noise
# whose spread is a quarter of that of the values. R² is that on masks which no decoder has seen.

# %%
many = mx.sample_masks(40, 1200, keep=0.5, seed=1)
clean = 2.0 * (many[:, 0] & many[:, 1]) - 2.0 * (many[:, 2] & many[:, 3])
clean = clean + 2.0 * (many[:, 4] | many[:, 5]) + 2.0 * (many[:, 6] & many[:, 7] & many[:, 8])
noisy = clean + np.random.default_rng(2).normal(0, clean.std() / 4, len(clean))
curves = mx.learning_curves(many, noisy, decoders=["additive", "pursuit", "kernel"])
curves.plot()

# %% [markdown]
# The additive decoder stops at what singles explain, however many masks it is given. `pursuit`,
# which looks for few terms, comes near to what the noise leaves (R² .94) with few masks. `kernel`,
# which spreads over all pairs and triples, needs more of them here; on language models, whose
# interactions are many and small, it is the best. `automatic`, the default, decides by
# cross-validation.
#
# ## The trap of a high density
#
# Masks that keep nine units of ten stay near the whole model, and that is often what one wants. But
# how many of a hundred such masks ablate two given units together?

# %%
units, pairs = mx.parts(40), 40 * 39 // 2
for keep in (0.9, 0.7, 0.5):
    gone = (~mx.sample_masks(40, 100, keep=keep, seed=3)).astype(int)
    together = (gone.T @ gone)[np.triu_indices(40, 1)]
    print(f"keep {keep}: {(together == 0).mean():4.0%} of {pairs} pairs never ablated together")

# %% [markdown]
# Of a pair that was never ablated together nothing is known, and fresh masks of the same density do
# not notice. `explain` says so where it happens; then take more masks, or a lower density.
#
# ## A control
#
# What does the search find where there is nothing? The same masks, and noise alone:

# %%
noise = np.random.default_rng(4).normal(size=len(many))
nothing = mx.recover(many[:1000], noise[:1000], many[1000:], noise[1000:], keep=0.5)
print(f"R² {nothing.r2:.2f}; sets of two and more that stand out:", nothing.evidence.interactions)

# %% [markdown]
# Next: notebook 1 does the same with the heads of a language model, notebook 3 with a model of
# your own.
