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
# # 4 · A sweep of all heads, and what to do with its table
#
# The plainest experiment: ablate every head alone and see what it costs. Here for three tasks, so
# that there is a question: which heads serve one task, and which serve several? SmolLM2-135M
# (fetched once, 93 MB); about two minutes on two idle cores.

# %%
import numpy as np
import pandas as pd

import mechspex as mx
from mechspex import figures

model = mx.load_model("smollm2-135m")
heads = mx.heads(model)

# %% [markdown]
# ## Sweep
#
# `sweep` measures the whole model, and the model without each of its 270 heads. Nothing is
# estimated. `run=` keeps every value in a folder: the second time nothing is measured, and an
# interrupted sweep goes on where it stopped.

# %%
values, swept = {}, {}
for name in ["ioi", "capital", "pronoun"]:
    task = mx.load_task(name, model, n_prompts=6)
    values[name] = mx.ComponentValues(model, task, heads, ablation="mean")
    swept[name] = mx.sweep(values[name], run=f"notebook-sweep-{name}")
    print(swept[name].in_short)

# %% [markdown]
# One scale of colours for all. Red heads work for the right answer: it loses when they are ablated.
# Blue ones work against it. In each task most heads hardly matter alone, and those that do lie in
# the upper half.

# %%
figures.head_map(*swept.values())

# %% [markdown]
# ## The table
#
# The run's folder holds `sweep.csv`, for pandas, R or a spreadsheet. A row is a head: the effect of
# ablating it with its interval over prompts, and whether that leaves out zero (*confirmed*, at a
# false discovery rate of 5% among the 270). `value` is what is left without the head. Six prompts
# and 270 tests confirm little: a large effect with a wide interval asks for more prompts.

# %%
table = pd.read_csv(swept["ioi"].folder / "sweep.csv")
table.sort_values("effect").head(5).round(2)

# %% [markdown]
# Three tables, one frame. Effects are divided by the clean value, so that tasks can be compared:
# −0.5 says that half of the logit difference goes.

# %%
long = pd.concat([sweep.to_pandas().assign(task=name) for name, sweep in swept.items()])
clean = {name: sweep.clean.mean() for name, sweep in swept.items()}
long["share"] = long["effect"] / long["task"].map(clean)
wide = long.pivot(index="units", columns="task", values="share")
wide.loc[wide.abs().max(axis=1).nlargest(10).index].round(2)

# %% [markdown]
# ## One task or several?
#
# Of the ten heads that each task loses most without, how many are among the ten of another? By
# chance it would be less than one: ten of 270, ten times.

# %%
top = {name: set(wide[name].nsmallest(10).index) for name in wide}
pd.DataFrame({one: {other: len(top[one] & top[other]) for other in top} for one in top})

# %% [markdown]
# ## What a sweep cannot say
#
# It sees heads one by one. So ablate the ten together, and hold what that costs against the sum of
# what they cost alone.

# %%
rows = []
for name, ten in top.items():
    mask = np.array([[head not in ten for head in heads.names]])
    together = values[name](mask).mean() - clean[name]
    alone = swept[name].singles().set_index("units").loc[list(ten), "effect"].sum()
    rows.append((name, clean[name], alone, together))
columns = ["task", "clean", "sum of the ten alone", "the ten together"]
pd.DataFrame(rows, columns=columns).set_index("task").round(2)

# %% [markdown]
# Where the two differ, heads act together: they need each other, or make up for each other. A sweep
# cannot say which. Pairs of a few heads can be swept as well:

# %%
five = sorted(top["ioi"], key=wide["ioi"].get)[:5]
pairs = mx.sweep(values["ioi"], order=2, among=five, run="notebook-sweep-ioi")
pairs.pairs()[["units", "effect", "low", "high", "confirmed"]].round(2)

# %% [markdown]
# Above zero: the second loss costs less than it would alone. Below zero: it costs more, as it does
# where one head makes up for the other. These heads were chosen and measured on the same six prompts, so *confirmed* is a
# little too kind here; `mx.validate` on fresh prompts is the test. To search all 36,315 pairs at
# the price of a few hundred masks, see notebook 1.
