#include "qatx/model/report.h"

#include <fmt/format.h>

#include <algorithm>

#include "qatx/core/text.h"
#include "qatx/model/table.h"

namespace qatx {

int64_t macs(const ConversionReport& report) {
  int64_t sum = 0;
  for (const NodeReport& node : report.nodes) sum += node.macs;
  return sum;
}

double integer_share_of_macs(const ConversionReport& report) {
  int64_t integer = 0;
  for (const NodeReport& node : report.nodes) integer += node.integer ? node.macs : 0;
  const int64_t all = macs(report);
  return all == 0 ? 0.0 : static_cast<double>(integer) / static_cast<double>(all);
}

int64_t weight_bytes(const ConversionReport& report) {
  int64_t sum = 0;
  for (const NodeReport& node : report.nodes) sum += node.weight_bytes;
  return sum;
}

std::ostream& operator<<(std::ostream& stream, const ConversionReport& report) {
  Table table({{"module"},
               {"operator"},
               {"runs in"},
               {"weights [B]", true},
               {"MACs", true},
               {"why float"}});
  const auto number = [](int64_t value) { return value ? with_commas(value) : ""; };
  for (const NodeReport& node : report.nodes) {
    table.add_row({node.name, node.kind, node.integer ? "integer" : "float",
                   number(node.weight_bytes), number(node.macs), node.reason});
  }
  const auto integers = std::count_if(report.nodes.begin(), report.nodes.end(),
                                      [](const NodeReport& node) { return node.integer; });
  return stream << table.text()
                << fmt::format(
                       "In integers: {} of {} operators, {:.1f}% of {} multiply-accumulates. "
                       "Integer weights: {} bytes.\n",
                       integers, report.nodes.size(), 100.0 * integer_share_of_macs(report),
                       with_commas(macs(report)), with_commas(weight_bytes(report)));
}

}  // namespace qatx
