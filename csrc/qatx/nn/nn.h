#pragma once

// Modules that train with quantized values. They call the operators of qatx/ops and have no
// arithmetic of their own; parameters and buffers are named as in Python, and the same seed makes
// the same ones.

#include "qatx/nn/attention.h"
#include "qatx/nn/combine.h"
#include "qatx/nn/conv.h"
#include "qatx/nn/conv_bn.h"
#include "qatx/nn/embedding.h"
#include "qatx/nn/fake_quantize.h"
#include "qatx/nn/linear.h"
#include "qatx/nn/listener.h"
#include "qatx/nn/qconfig.h"
#include "qatx/nn/quantizers.h"
