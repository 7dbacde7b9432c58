"""The value function of model components: heads, neurons and MLPs under ablation."""
