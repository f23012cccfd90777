// The Python module qatx._C: thin wrappers, no logic. Tensors and modules cross as Torch's own
// Python objects; a TorchScript module crosses as the bytes of its archive, which needs no
// agreement with Torch about pybind11's internals.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/csrc/utils/pybind.h>

#include <sstream>

#include "calibration_checks.h"
#include "observer.h"
#include "ptq.h"
#include "qatx/convert/convert.h"
#include "qatx/core/qparams.h"
#include "qatx/library.h"
#include "verify.h"

namespace py = pybind11;

namespace {

py::tuple convert_archive(const std::string& archive,
                          const std::vector<at::Tensor>& example_inputs) {
  std::string converted;
  py::list rows;
  {
    qatx::Converted result = [&] {
      const py::gil_scoped_release release;
      std::istringstream in(archive);
      qatx::Converted from_bytes = qatx::convert(torch::jit::load(in, at::kCPU),
                                                 {example_inputs.begin(), example_inputs.end()});
      std::ostringstream out;
      from_bytes.module.save(out);
      converted = std::move(out).str();
      return from_bytes;
    }();
    for (const qatx::NodeReport& node : result.report.nodes) {
      py::dict row;
      row["name"] = node.name;
      row["kind"] = node.kind;
      row["integer"] = node.integer;
      row["reason"] = node.reason;
      row["weight_bytes"] = node.weight_bytes;
      row["macs"] = node.macs;
      rows.append(row);
    }
  }
  return py::make_tuple(py::bytes(converted), rows);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  using qatx::QuantSpec;

  py::class_<QuantSpec>(
      m, "QuantSpec",
      R"(How a tensor is quantized: everything but the numbers that are learned or measured.

Args:
    bits: 2 to 8.
    signed: codes -2**(bits-1) .. 2**(bits-1)-1, otherwise 0 .. 2**bits-1.
    symmetric: the zero point is the middle code (0 when signed) and is not learned.
    axis: None for one scale per tensor, or the dimension whose every index has its own; negative counts from the end.
    narrow_range: leaves the lowest code out; 2 bits, signed: ternary (-1, 0, 1).
    group_size: scales for groups of that many elements along axis, at every index of the other dimensions; the last group may be smaller.

Raises:
    ValueError: bits or group_size is out of range, or group_size has no axis.)")
      .def(py::init<int64_t, bool, bool, std::optional<int64_t>, bool, std::optional<int64_t>>(),
           py::kw_only(), py::arg("bits") = 8, py::arg("signed") = true,
           py::arg("symmetric") = true, py::arg("axis") = py::none(),
           py::arg("narrow_range") = false, py::arg("group_size") = py::none())
      .def_property_readonly("bits", &QuantSpec::bits)
      .def_property_readonly("signed", &QuantSpec::is_signed)
      .def_property_readonly("symmetric", &QuantSpec::symmetric)
      .def_property_readonly("axis", &QuantSpec::axis)
      .def_property_readonly("narrow_range", &QuantSpec::narrow_range)
      .def_property_readonly("group_size", &QuantSpec::group_size)
      .def(
          "scale_shape",
          [](const QuantSpec& self, const std::vector<int64_t>& sizes) {
            return py::tuple(py::cast(self.scale_shape(sizes)));
          },
          py::arg("sizes"),
          R"(The shape of the scales of a tensor of these sizes.

Returns:
    () per tensor, (channels,), or the sizes with the number of groups along the axis.

Raises:
    ValueError: the tensor has no such axis.)")
      .def_property_readonly("quant_min", &QuantSpec::quant_min)
      .def_property_readonly("quant_max", &QuantSpec::quant_max)
      .def("__repr__", &QuantSpec::repr)
      .def("__eq__",
           [](const QuantSpec& self, const py::object& other) {
             return py::isinstance<QuantSpec>(other) && self == other.cast<QuantSpec>();
           })
      .def("__hash__", [](const QuantSpec& self) { return py::hash(py::str(self.repr())); })
      .def(py::pickle(
          [](const QuantSpec& self) {
            return py::make_tuple(self.bits(), self.is_signed(), self.symmetric(), self.axis(),
                                  self.narrow_range(), self.group_size());
          },
          [](const py::tuple& state) {
            return QuantSpec(state[0].cast<int64_t>(), state[1].cast<bool>(), state[2].cast<bool>(),
                             state[3].cast<std::optional<int64_t>>(), state[4].cast<bool>(),
                             state[5].cast<std::optional<int64_t>>());
          }));

  m.def("choose_qparams",
        torch::wrap_pybind_function(
            [](const at::Tensor& min, const at::Tensor& max, const QuantSpec& spec) {
              return qatx::choose_qparams(min, max, spec);
            }),
        py::arg("min"), py::arg("max"), py::arg("spec"),
        R"(Turns ranges into quantization parameters.

Args:
    min, max: tensors of one shape and dtype, float32 or float64, finite, min <= max.
    spec: the codes to use.

Returns:
    (scale, zero_point), tensors of that shape and dtype; zero_point holds integers.

Raises:
    ValueError: a range is not finite or min > max.)");
  qatx::bind_calibration_checks(m);
  qatx::bind_observer(m);
  qatx::bind_ptq(m);
  qatx::bind_verify(m);
  m.def(
      "convert", torch::wrap_pybind_function(convert_archive), py::arg("archive"),
      py::arg("example_inputs"),
      "TorchScript archive of a traced model in, (archive of the converted one, report rows) out.");
  m.def(
      "isa", &qatx::isa,
      "The instruction set in use: reference, avx2, avx512, vnni or amx (capped by QATX_MAX_ISA).");
  m.def("version", &qatx::version, "Version of libqatx.");
}
