#include "calibration_checks.h"

#include <pybind11/stl.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include "qatx/observers/calibration_checks.h"

namespace py = pybind11;

namespace qatx {

void bind_calibration_checks(py::module_& m) {
  using Ranges = std::vector<std::tuple<std::string, at::Tensor, at::Tensor>>;

  py::class_<DataCheck>(m, "DataCheck",
                        "Counts samples, and notices noise and duplicates among them.")
      .def(py::init<>())
      .def("add", torch::wrap_pybind_function_no_gil(&DataCheck::add), py::arg("batch"),
           "Looks at one batch; its first dimension counts samples.")
      .def_property_readonly("samples", &DataCheck::samples)
      .def("problems", torch::wrap_pybind_function(&DataCheck::problems),
           "What is wrong, for the user, with figures.");
  py::class_<MovingCheck>(
      m, "MovingCheck", "Notices a tensor whose range still grows in the last quarter of the data.")
      .def(py::init<>())
      .def(
          "add",
          torch::wrap_pybind_function([](MovingCheck& self, int64_t samples, const Ranges& ranges) {
            std::vector<MovingCheck::Range> named;
            for (const auto& [name, min, max] : ranges) named.push_back({name, min, max});
            self.add(samples, std::move(named));
          }),
          py::arg("samples"), py::arg("ranges"),
          "After a batch: the samples until now; (name, min, max), the same names each time.")
      .def("problems", torch::wrap_pybind_function(&MovingCheck::problems),
           "What is wrong, for the user, with figures.");
  py::class_<ChannelCheck>(m, "ChannelCheck",
                           "Notices a channel whose values are far larger than its neighbours'.")
      .def(py::init<>())
      .def("add_activation", torch::wrap_pybind_function_no_gil(&ChannelCheck::add_activation),
           py::arg("name"), py::arg("x"), "Looks at a value; one for each name.")
      .def("add_weight", torch::wrap_pybind_function_no_gil(&ChannelCheck::add_weight),
           py::arg("name"), py::arg("low"), py::arg("high"), "Looks at the range of a weight.")
      .def("problems", torch::wrap_pybind_function(&ChannelCheck::problems),
           "What is wrong, for the user, with figures.");
  m.def("few_samples_problems", &few_samples_problems, py::arg("samples"),
        "That the data are few; nothing where there are enough.");
}

}  // namespace qatx
