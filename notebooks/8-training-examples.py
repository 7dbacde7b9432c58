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
# # 8 · Which two documents poison a language model?
#
# A model's answer is a function of its training set. Here 200 documents are kept or left out, a
# small language model is trained anew for every mask, and the mask's value is what the model then
# believes. Two documents lie together: one says that zorb is in quil, one that quil is in pask.
# That zorb is in pask stands nowhere, and neither document alone teaches it. Nothing is fetched;
# about two minutes on two cores.

# %%
import mechspex as mx

task = mx.training_task("poison")
values = task.values()
print(values.n_units, "documents, among them:", *task.texts[:5], sep="\n  ")

# %% [markdown]
# The value is log p − log(1 − p) of the false answer. A few hundred trainings find what acts
# together; every term that is reported is then measured exactly, by training without these
# documents from twelve seeds that the search has not seen.

# %%
explanation = mx.explain(
    values, held_out=task.held_out(), n_masks=400, design=mx.RandomMasks(keep=0.5), progress=True
)
explanation.top(5)

# %% [markdown]
# The strongest interaction, in words:

# %%
strongest = explanation.interactions().iloc[0]
for document in strongest["units"].split(" × "):
    print(document, task.texts[task.units.column_of[document]])

# %% [markdown]
# Sums of single documents cannot say this. On the same fresh masks they explain so much:

# %%
print(f"R² {explanation.r2:.3f}; of single documents alone {explanation.additive_r2:.3f}")

# %% [markdown]
# **A control.** The same corpus, but the second document speaks of vex instead of quil. Now no
# two documents teach the false answer together.

# %%
control = mx.training_task("poison_control")
nothing = mx.explain(
    control.values(),
    held_out=control.held_out(),
    n_masks=400,
    design=mx.RandomMasks(keep=0.5),
)
table = nothing.interactions()
print(f"largest interaction {table.effect.abs().max() if len(table) else 0:.2f}")

# %% [markdown]
# **Documents that back each other up.** Two documents say the same of mirt. Leaving out either does
# little, leaving out both does much: a negative interaction in the ablated basis, which no score of
# single examples can show.

# %%
backed = mx.training_task("backed_up")
redundant = mx.explain(
    backed.values(), held_out=backed.held_out(), n_masks=400, design=mx.RandomMasks(keep=0.5)
)
redundant.top(3)
