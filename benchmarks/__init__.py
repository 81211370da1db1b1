"""What the docs state in numbers, and the scripts that measure it: `python -m benchmarks.cost.saliency_cost`.

`common/` is shared, `cost/` measures time and memory, `methods/` compares the methods, `shortcuts/` the alarm, and
`results/` keeps what took long. The digits of the examples serve here too, so their folder joins the path.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "examples"))
