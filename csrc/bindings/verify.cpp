#include "verify.h"

#include <pybind11/operators.h>
#include <pybind11/stl.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/csrc/utils/pybind.h>

#include <sstream>

#include "qatx/model/comparison.h"

namespace py = pybind11;

namespace qatx {

void bind_verify(py::module_& m) {
  py::class_<VerificationRow>(
      m, "VerificationRow",
      R"(One quantized value of the trained model, in both models, over all data.

Attributes:
    name: Path of the fake quantizer.
    elements: How many were compared; 0 where the converted model does not hold the value in integers.
    different: Elements whose codes differ.
    largest: The largest difference, in codes.
    sqnr: Signal to noise in decibels, the noise being the difference; infinite where there is none.)")
      .def(py::init<std::string, int64_t, int64_t, int64_t, double>(), py::kw_only(),
           py::arg("name"), py::arg("elements"), py::arg("different"), py::arg("largest"),
           py::arg("sqnr"))
      .def_readonly("name", &VerificationRow::name)
      .def_readonly("elements", &VerificationRow::elements)
      .def_readonly("different", &VerificationRow::different)
      .def_readonly("largest", &VerificationRow::largest)
      .def_readonly("sqnr", &VerificationRow::sqnr)
      .def_property_readonly(
          "equal", [](const VerificationRow& self) { return self.different == 0; },
          "No code differs.")
      .def_property_readonly("rounding_only", &VerificationRow::rounding_only,
                             "Codes differ by one at most, in a share of 1e-4 at most.")
      .def(py::self == py::self)
      .def(py::pickle(
          [](const VerificationRow& self) {
            return py::make_tuple(self.name, self.elements, self.different, self.largest,
                                  self.sqnr);
          },
          [](const py::tuple& saved) {
            return VerificationRow{saved[0].cast<std::string>(), saved[1].cast<int64_t>(),
                                   saved[2].cast<int64_t>(), saved[3].cast<int64_t>(),
                                   saved[4].cast<double>()};
          }));
  py::class_<Verification>(m, "Verification",
                           R"(What `qatx.verify` found; `print` shows it as a table.

Attributes:
    rows: One for each quantized value, in the order in which the trained model makes them.
    outputs_sqnr: Signal to noise of the models' outputs, in decibels.)")
      .def(py::init<std::vector<VerificationRow>, double>(), py::arg("rows"),
           py::arg("outputs_sqnr"))
      .def_property_readonly(
          "rows", [](const Verification& self) { return py::tuple(py::cast(self.rows)); })
      .def_readonly("outputs_sqnr", &Verification::outputs_sqnr)
      .def_property_readonly(
          "ok", &Verification::ok,
          "Whether nothing differs but by rounding and what follows from it; outputs agree.")
      .def_property_readonly("verdict", &Verification::verdict, "One sentence.")
      .def("table", &Verification::table, py::kw_only(), py::arg("width") = 120,
           R"(The comparison as text.

Args:
    width: Columns of characters; long names are folded.)")
      .def("__str__", [](const Verification& self) { return self.table(120); })
      .def("__repr__", [](const Verification& self) { return self.verdict(); })
      .def(py::self == py::self)
      .def(py::pickle(
          [](const Verification& self) { return py::make_tuple(self.rows, self.outputs_sqnr); },
          [](const py::tuple& saved) {
            return Verification{saved[0].cast<std::vector<VerificationRow>>(),
                                saved[1].cast<double>()};
          }));
  py::class_<Comparison>(m, "Comparison",
                         "Compares what a trained and a converted model make of the same data.")
      .def(py::init([](const std::string& archive) {
             std::istringstream in(archive);
             return Comparison(torch::jit::load(in, at::kCPU));
           }),
           py::arg("archive"))
      .def("add", torch::wrap_pybind_function_no_gil(&Comparison::add), py::arg("inputs"),
           py::arg("values"), py::arg("outputs"),
           R"(Adds one batch: inputs, (name of a fake quantizer, what it returned), all outputs.

Raises:
    ValueError: there are no values.)")
      .def("finish", torch::wrap_pybind_function(&Comparison::finish),
           R"(What was found.

Raises:
    ValueError: nothing was added.)");
}

}  // namespace qatx
