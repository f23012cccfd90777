#include "observer.h"

#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include "qatx/observers/observer.h"
#include "qatx/observers/ranks.h"

namespace py = pybind11;

namespace qatx {
namespace {

py::tuple to_tuple(const ChosenRange& range) {
  return py::make_tuple(range.low, range.high, range.clipped_share, range.error, range.mean_square);
}

}  // namespace

void bind_observer(py::module_& m) {
  m.def("range_methods", &range_method_names, "The names of the ways to choose a range.");
  py::class_<Observer>(
      m, "Observer",
      R"(Histogram and exact statistics of the values that share a scale, for each scale.

Args:
    spec: which elements share a scale.
    scale_shape: spec.scale_shape of what will be observed.
    bins: on either side of 0, a power of two from 16 to 32768; 0: 4096 for one scale, 512 for many.

Raises:
    ValueError: scale_shape does not go with spec, or bins is out of range.)")
      .def(py::init<const QuantSpec&, const std::vector<int64_t>&, int64_t>(), py::arg("spec"),
           py::arg("scale_shape") = std::vector<int64_t>(), py::arg("bins") = 0)
      .def("observe", torch::wrap_pybind_function([](Observer& self, const at::Tensor& x) {
             const py::gil_scoped_release release;
             self.observe(x);
           }),
           py::arg("x"),
           R"(Adds the values of a tensor; NaN and infinities are counted and left out.

Raises:
    TypeError: x is not floating point.
    ValueError: x is not on the CPU, or its scales have another shape.)")
      .def("merge", torch::wrap_pybind_function(&Observer::merge), py::arg("other"),
           R"(Adds what another observer has seen.

Raises:
    ValueError: other has another shape or number of bins.)")
      .def("choose",
           torch::wrap_pybind_function(
               [](const Observer& self, const QuantSpec& spec, const std::string& method,
                  double percentile,
                  double norm) { return to_tuple(self.choose(spec, method, percentile, norm)); }),
           py::arg("spec"), py::arg("method"), py::kw_only(), py::arg("percentile") = 99.99,
           py::arg("norm") = 2.0,
           R"(The range that a method chooses for each scale.

Returns:
    (low, high, clipped share, expected mean squared error, mean square), float64.

Raises:
    ValueError: an argument is out of range, or a scale has seen no finite value.)")
      .def_static("choose_for",
                  torch::wrap_pybind_function([](const at::Tensor& x, const QuantSpec& spec,
                                                 const std::string& method, double percentile,
                                                 double norm) {
                    return to_tuple(Observer::choose_for(x, spec, method, percentile, norm));
                  }),
                  py::arg("x"), py::arg("spec"), py::arg("method"), py::kw_only(),
                  py::arg("percentile") = 99.99, py::arg("norm") = 2.0,
                  "choose() for all values of one tensor.")
      .def_property("state", torch::wrap_pybind_function(&Observer::state),
                    torch::wrap_pybind_function(&Observer::set_state),
                    "Everything that was seen: int64, (scales, words).")
      .def_property_readonly("min", torch::wrap_pybind_function(&Observer::min))
      .def_property_readonly("max", torch::wrap_pybind_function(&Observer::max))
      .def_property_readonly("count", torch::wrap_pybind_function(&Observer::count))
      .def_property_readonly("nan_count", torch::wrap_pybind_function(&Observer::nan_count))
      .def_property_readonly("inf_count", torch::wrap_pybind_function(&Observer::inf_count))
      .def_property_readonly("mean_magnitude",
                             torch::wrap_pybind_function(&Observer::mean_magnitude))
      .def_property_readonly("histogram", torch::wrap_pybind_function(&Observer::histogram),
                             "int64, (scales, 2 * bins); bin i holds values from (i - bins) * "
                             "bin_width, away from 0.")
      .def_property_readonly("bin_width", torch::wrap_pybind_function(&Observer::bin_width))
      .def_property_readonly("bins", &Observer::bins)
      .def(py::pickle(
          [](const Observer& self) {
            return py::make_tuple(self.spec(), self.scale_shape(), self.bins(), self.state());
          },
          [](const py::tuple& saved) {
            Observer observer(saved[0].cast<QuantSpec>(), saved[1].cast<std::vector<int64_t>>(),
                              saved[2].cast<int64_t>());
            observer.set_state(saved[3].cast<at::Tensor>());
            return observer;
          }));
  m.def("sum_over_ranks", torch::wrap_pybind_function(&sum_over_ranks), py::arg("all_gather"),
        py::arg("value"), "The sum of what all ranks have; the value itself without all_gather.");
  m.def("merge_over_ranks", torch::wrap_pybind_function(&merge_over_ranks), py::arg("all_gather"),
        py::arg("observers"),
        "Adds to each observer what those of the other ranks have seen, the same bits on all "
        "ranks.");
}

}  // namespace qatx
