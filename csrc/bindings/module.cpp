// The Python module qatx._C: thin wrappers, no logic. Tensors and modules cross as Torch's own
// Python objects; a TorchScript module crosses as the bytes of its archive, which needs no
// agreement with Torch about pybind11's internals.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/csrc/utils/pybind.h>

#include <sstream>

#include "qatx/qatx.h"

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

Raises:
    ValueError: bits is out of range.)")
      .def(py::init<int64_t, bool, bool, std::optional<int64_t>>(), py::kw_only(),
           py::arg("bits") = 8, py::arg("signed") = true, py::arg("symmetric") = true,
           py::arg("axis") = py::none())
      .def_property_readonly("bits", &QuantSpec::bits)
      .def_property_readonly("signed", &QuantSpec::is_signed)
      .def_property_readonly("symmetric", &QuantSpec::symmetric)
      .def_property_readonly("axis", &QuantSpec::axis)
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
            return py::make_tuple(self.bits(), self.is_signed(), self.symmetric(), self.axis());
          },
          [](const py::tuple& state) {
            return QuantSpec(state[0].cast<int64_t>(), state[1].cast<bool>(), state[2].cast<bool>(),
                             state[3].cast<std::optional<int64_t>>());
          }));

  m.def("choose_qparams", torch::wrap_pybind_function(qatx::choose_qparams), py::arg("min"),
        py::arg("max"), py::arg("spec"),
        R"(Turns ranges into quantization parameters.

Args:
    min, max: float32 tensors of one shape ([] or [channels]), finite, min <= max.
    spec: the codes to use.

Returns:
    (scale, zero_point), float32 tensors of that shape; zero_point holds integers.

Raises:
    ValueError: a range is not finite or min > max.)");
  m.def(
      "convert", torch::wrap_pybind_function(convert_archive), py::arg("archive"),
      py::arg("example_inputs"),
      "TorchScript archive of a traced model in, (archive of the converted one, report rows) out.");
  m.def("isa", &qatx::isa,
        "The instruction set in use: reference, avx2, avx512 or vnni (capped by QATX_MAX_ISA).");
  m.def("version", &qatx::version, "Version of libqatx.");
}
