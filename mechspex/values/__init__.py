"""Value functions: what a model is worth under a mask."""

from mechspex.values.components import ComponentValues
from mechspex.values.value_function import FunctionValues, ValueFunction, as_value_function

__all__ = ["ComponentValues", "FunctionValues", "ValueFunction", "as_value_function"]
