#include "qatx/model/table.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>

namespace qatx {
namespace {

constexpr size_t kNarrow = 8;

}  // namespace

void Table::add_row(std::vector<std::string> cells) {
  TORCH_INTERNAL_ASSERT(cells.size() == columns_.size());
  rows_.push_back(std::move(cells));
}

std::vector<size_t> Table::widths_for(size_t width) const {
  std::vector<size_t> widths;
  size_t line = 2 * (columns_.size() - 1);
  for (size_t i = 0; i < columns_.size(); ++i) {
    size_t most = columns_[i].name.size();
    for (const auto& row : rows_) most = std::max(most, row[i].size());
    widths.push_back(most);
    line += most;
  }
  for (; width > 0 && line > width; --line) {
    size_t widest = columns_.size();
    for (size_t i = 0; i < columns_.size(); ++i) {
      const bool can = columns_[i].folds && widths[i] > std::max(kNarrow, columns_[i].name.size());
      if (can && (widest == columns_.size() || widths[i] > widths[widest])) widest = i;
    }
    if (widest == columns_.size()) break;
    --widths[widest];
  }
  return widths;
}

std::string Table::text(size_t width) const {
  const std::vector<size_t> widths = widths_for(width);
  std::string text;
  const auto add_lines = [&](const auto& cell) {
    for (size_t begin = 0, more = 1; more != 0; ++begin) {
      std::string line;
      more = 0;
      for (size_t i = 0; i < columns_.size(); ++i) {
        const std::string whole = cell(i);
        const size_t from = std::min(begin * widths[i], whole.size());
        const std::string part = whole.substr(from, widths[i]);
        more |= whole.size() - from - part.size();
        if (i > 0) line += "  ";
        line += columns_[i].right ? fmt::format("{:>{}}", part, widths[i])
                                  : fmt::format("{:<{}}", part, widths[i]);
      }
      line.erase(line.find_last_not_of(' ') + 1);
      text += line + "\n";
    }
  };
  add_lines([&](size_t i) { return columns_[i].name; });
  add_lines([&](size_t i) { return std::string(widths[i], '-'); });
  for (const auto& row : rows_) add_lines([&](size_t i) { return row[i]; });
  return text;
}

}  // namespace qatx
