"""Post-training quantization: better integers from a trained model and samples, without training.

Before `qatx.prepare`, on the float model: `equalize` and `smooth_quant` make its tensors easier to
quantize, without changing what it computes. After `qatx.calibrate`, on the prepared model: `gptq`
and `adaround` choose how weights are rounded, and `correct_bias` corrects what is left on average.
"""

from qatx.ptq._adaround import adaround
from qatx.ptq._correct_bias import correct_bias
from qatx.ptq._equalize import equalize
from qatx.ptq._gptq import gptq
from qatx.ptq._report import PtqReport, PtqRow
from qatx.ptq._smooth_quant import smooth_quant

__all__ = [
    "PtqReport",
    "PtqRow",
    "adaround",
    "correct_bias",
    "equalize",
    "gptq",
    "smooth_quant",
]
