#pragma once

// Everything that qatx offers to C++.

#include "qatx/convert/convert.h"
#include "qatx/core/qparams.h"
#include "qatx/core/quant_spec.h"
#include "qatx/library.h"
#include "qatx/observers/observer.h"
#include "qatx/ops/dorefa.h"
#include "qatx/ops/fake_quantize.h"
#include "qatx/ops/learned_zero_point.h"
#include "qatx/ops/moving_average.h"
#include "qatx/ops/pack_codes.h"
#include "qatx/ops/pact.h"
#include "qatx/ops/quantize.h"
#include "qatx/ops/scales.h"
#include "qatx/ptq/adaround.h"
#include "qatx/ptq/channel_scales.h"
#include "qatx/ptq/gptq.h"
#include "qatx/ptq/output_error.h"
