from .bench import bench as bench
from .catalogue import FIGURES as FIGURES
from .or_gate import or_gate as or_gate
from .recovery import recovery as recovery
from .reproduction import Reproduction as Reproduction
from .shapley import shapley as shapley
