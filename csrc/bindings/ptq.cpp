#include "ptq.h"

#include <pybind11/stl.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include "qatx/ptq/adaround.h"
#include "qatx/ptq/channel_scales.h"
#include "qatx/ptq/gptq.h"
#include "qatx/ptq/output_error.h"

namespace py = pybind11;

namespace qatx {

void bind_ptq(py::module_& m) {
  using at::Tensor;
  using ptq::OutputError;
  using ptq::WeightGrid;

  py::class_<OutputError>(
      m, "OutputError",
      R"(The squared error of a layer's output, as a function of its weights; float64.

Args:
    groups: of the convolution; 1 for a linear layer.
    outputs: output channels of each group.
    inputs: elements that an output element of a group is a weighted sum of.

Raises:
    ValueError: one of them is less than 1.)")
      .def(py::init<int64_t, int64_t, int64_t>(), py::arg("groups"), py::arg("outputs"),
           py::arg("inputs"))
      .def(
          "add", torch::wrap_pybind_function_no_gil(&OutputError::add), py::arg("x"), py::arg("y"),
          R"(Adds samples: inputs [N, groups, inputs, rows] and wanted outputs [N, groups, outputs, rows].

Raises:
    ValueError: another shape.)")
      .def(
          "__call__", torch::wrap_pybind_function_no_gil(&OutputError::operator()),
          py::arg("weight"),
          R"(The squared error of each output channel, [groups, outputs], with weights [groups, outputs, inputs].

Raises:
    ValueError: another shape.)")
      .def_property_readonly("gram", torch::wrap_pybind_function(&OutputError::gram))
      .def_property_readonly("cross", torch::wrap_pybind_function(&OutputError::cross))
      .def_property_readonly("squares", torch::wrap_pybind_function(&OutputError::squares))
      .def_property_readonly("rows", &OutputError::rows);

  m.def("gptq",
        torch::wrap_pybind_function_no_gil(
            [](const OutputError& error, const Tensor& weight, const Tensor& scale,
               const Tensor& zero_point, int64_t quant_min, int64_t quant_max, double dampening,
               int64_t block_size, bool activation_order) {
              return ptq::gptq(error, weight, WeightGrid{scale, zero_point, quant_min, quant_max},
                               {dampening, block_size, activation_order});
            }),
        py::arg("error"), py::arg("weight"), py::arg("scale"), py::arg("zero_point"),
        py::arg("quant_min"), py::arg("quant_max"), py::kw_only(), py::arg("dampening"),
        py::arg("block_size"), py::arg("activation_order"),
        "Weights [groups, outputs, inputs] rounded by GPTQ; scale and zero_point are like them.");
  m.def("adaround",
        torch::wrap_pybind_function_no_gil(
            [](const OutputError& error, const Tensor& weight, const Tensor& scale,
               const Tensor& zero_point, int64_t quant_min, int64_t quant_max, double dampening,
               int64_t iterations, double learning_rate, double regularization, double warm_up,
               const std::pair<double, double>& beta) {
              return ptq::adaround(error, weight,
                                   WeightGrid{scale, zero_point, quant_min, quant_max},
                                   {dampening, iterations, learning_rate, regularization, warm_up,
                                    beta.first, beta.second});
            }),
        py::arg("error"), py::arg("weight"), py::arg("scale"), py::arg("zero_point"),
        py::arg("quant_min"), py::arg("quant_max"), py::kw_only(), py::arg("dampening"),
        py::arg("iterations"), py::arg("learning_rate"), py::arg("regularization"),
        py::arg("warm_up"), py::arg("beta"),
        "Weights [groups, outputs, inputs] rounded by AdaRound; scale and zero_point are like "
        "them.");
  m.def("equalization_scales", torch::wrap_pybind_function(&ptq::equalization_scales),
        py::arg("made"), py::arg("read"),
        "What to divide channels by so that the weights that make and read them are alike.");
  m.def("migration_scales", torch::wrap_pybind_function(&ptq::migration_scales), py::arg("value"),
        py::arg("read"), py::arg("alpha"),
        "What to divide channels by to move the difficulty of quantization into weights.");
}

}  // namespace qatx
